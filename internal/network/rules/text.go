package rules

import (
	"fmt"
	"strings"
)

// String writes the table in nft's own syntax.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s {\n", t.Family.proto(), t.Name)
	for i, s := range t.Sets {
		if i > 0 {
			b.WriteByte('\n')
		}
		s.write(&b, t.Family)
	}
	for i, c := range t.Chains {
		if i > 0 || len(t.Sets) > 0 {
			b.WriteByte('\n')
		}
		c.write(&b, t.Family)
	}
	b.WriteString("}\n")
	return b.String()
}

func (s Set) write(b *strings.Builder, f Family) {
	kind, types := "set", typeNames(f, s.Key)
	if len(s.Data) > 0 {
		kind, types = "map", types+" : "+typeNames(f, s.Data)
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\ttype %s\n", kind, s.Name, types)
	for i, e := range s.Elements {
		lead, tail := "\t\t             ", ",\n"
		if i == 0 {
			lead = "\t\telements = { "
		}
		if i == len(s.Elements)-1 {
			tail = " }\n"
		}
		b.WriteString(lead + e.String() + tail)
	}
	b.WriteString("\t}\n")
}

// String writes the element as nft would.
func (e Element) String() string {
	if len(e.Data) == 0 {
		return join(e.Key)
	}
	return join(e.Key) + " : " + join(e.Data)
}

func typeNames(f Family, ts []Type) string {
	names := make([]string, len(ts))
	for i, t := range ts {
		names[i] = t.in(f)
	}
	return strings.Join(names, " . ")
}

func (c Chain) write(b *strings.Builder, f Family) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Base != nil {
		fmt.Fprintf(b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.Base.Type, c.Base.Hook, c.Base.Priority)
	}
	for _, r := range c.Rules {
		b.WriteString("\t\t" + r.In(f) + "\n")
	}
	b.WriteString("\t}\n")
}

// In writes the rule as nft would in a table of the family.
func (r Rule) In(f Family) string {
	parts := make([]string, 0, len(r.Match)+1)
	for _, m := range r.Match {
		parts = append(parts, m.in(f))
	}
	return strings.Join(append(parts, r.Do.in(f)), " ")
}

func (m Match) in(f Family) string {
	switch {
	case m.Established:
		return "ct state established,related"
	case m.DNATed:
		return "ct status dnat"
	case m.ToLocal:
		return "fib daddr type local"
	}
	s := fieldNames(f, m.Fields) + " "
	if m.Not {
		s += "!= "
	}
	switch {
	case m.Set != "":
		return s + "@" + m.Set
	case m.Prefix.IsValid():
		return s + m.Prefix.String()
	}
	return s + m.Value.Text
}

func fieldNames(family Family, fs []Field) string {
	names := make([]string, len(fs))
	for i, f := range fs {
		names[i] = f.in(family)
	}
	return strings.Join(names, " . ")
}

func (a Action) in(f Family) string {
	switch {
	case a.Jump != "":
		return "jump " + a.Jump
	case a.Masquerade:
		return "masquerade"
	case a.DNATMap != "":
		return "dnat " + f.proto() + " to " + fieldNames(f, a.Fields) + " map @" + a.DNATMap
	case a.DNAT.IsValid():
		return "dnat to " + a.DNAT.String()
	}
	return a.Verdict
}
