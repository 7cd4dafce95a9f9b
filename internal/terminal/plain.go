package terminal

import "io"

// Plain returns a writer that replaces what would move a terminal's cursor or change its colours: control characters
// other than newline and tab. For text that repeats what others wrote: objects, manifests, the kernel's log.
func Plain(w io.Writer) io.Writer { return &plain{out: w} }

type plain struct {
	out io.Writer
	// c2 says that the latest byte was 0xc2, which begins the control characters above 0x7f in UTF-8.
	c2 bool
}

// Write implements io.Writer. As many bytes are written as there are in b.
func (p *plain) Write(b []byte) (int, error) {
	clean := make([]byte, len(b))
	for i, c := range b {
		switch {
		case c < ' ' && c != '\n' && c != '\t', c == 0x7f:
			clean[i] = '?'
		case p.c2 && c >= 0x80 && c < 0xa0:
			clean[i] = 0xbf // an inverted question mark
		default:
			clean[i] = c
		}
		p.c2 = c == 0xc2
	}
	return p.out.Write(clean)
}
