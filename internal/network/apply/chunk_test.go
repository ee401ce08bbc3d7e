package apply

import (
	"testing"

	"github.com/google/nftables"
)

func TestChunks(t *testing.T) {
	element := func(key, val int) nftables.SetElement {
		return nftables.SetElement{Key: make([]byte, key), Val: make([]byte, val)}
	}
	many := func(n int, e nftables.SetElement) (out []nftables.SetElement) {
		for range n {
			out = append(out, e)
		}
		return out
	}
	for name, tc := range map[string]struct {
		in   []nftables.SetElement
		want []int
	}{
		"none":                   {nil, nil},
		"one":                    {many(1, element(8, 8)), []int{1}},
		"as many as fit":         {many(1820, element(8, 8)), []int{1820}},
		"one more":               {many(1821, element(8, 8)), []int{1820, 1}},
		"several lists":          {many(5000, element(8, 8)), []int{1820, 1820, 1360}},
		"odd lengths are padded": {many(1821, element(5, 6)), []int{1820, 1}},
		"IPv6, without data":     {many(3000, element(24, 0)), []int{1820, 1180}},
		"IPv6, with data":        {many(1100, element(24, 20)), []int{1023, 77}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			for _, c := range chunks(tc.in) {
				got = append(got, len(c))
			}
			if len(got) != len(tc.want) {
				t.Fatalf("%v, want %v", got, tc.want)
			}
			for i := range got {
				if got[i] != tc.want[i] {
					t.Errorf("%v, want %v", got, tc.want)
				}
			}
		})
	}
}
