package registryd

import "testing"

func FuzzHtpasswd(f *testing.F) {
	f.Add([]byte("joe:$2y$05$abcdefghijklmnopqrstuuSIezQEkrZbuwA7KZYOw5SQLBMZMDmSe\n# comment\n\n"))
	f.Add([]byte("joe:plain\n:x\njoe"))
	f.Fuzz(func(t *testing.T, data []byte) {
		users, _ := parseHtpasswd(data)
		for name, hash := range users {
			if name == "" || len(hash) == 0 {
				t.Errorf("%q has %q", name, hash)
			}
		}
	})
}
