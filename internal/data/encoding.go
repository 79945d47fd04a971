package data

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
)

// The encodings that are found out.
const (
	UTF8        = "utf-8"
	utf16LE     = "utf-16le"
	utf16BE     = "utf-16be"
	Windows1252 = "windows-1252"
)

// checkEncoding returns an error if an encoding is neither Auto nor one of the WHATWG Encoding
// Standard.
func checkEncoding(name string) error {
	if name == Auto {
		return nil
	}
	_, _, err := lookUp(name)
	return err
}

// lookUp returns an encoding and its name in the WHATWG Encoding Standard. As there, Latin-1 is
// windows-1252, which has characters such as “ where Latin-1 has control characters.
func lookUp(name string) (encoding.Encoding, string, error) {
	label := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(name)), "_", "-")
	switch label {
	case "latin-1":
		label = Windows1252
	case "utf-8-sig":
		label = UTF8
	}
	e, err := htmlindex.Get(label)
	if err != nil {
		return nil, "", fmt.Errorf("unknown encoding %q; want auto, utf-8, utf-16, windows-1252, "+
			"or another name of the WHATWG Encoding Standard, as shift_jis", name)
	}
	canonical, err := htmlindex.Name(e)
	return e, canonical, err
}

// decode makes the content UTF-8 without a byte order mark, with line feeds, and without the ^Z that
// ends some files. If the content is not UTF-8, guess allows windows-1252.
func (r *reader) decode(guess bool) error {
	if err := r.findEncoding(guess); err != nil {
		return err
	}
	if r.Encoding != UTF8 {
		e, _, err := lookUp(r.Encoding)
		if err != nil {
			return err
		}
		text, err := e.NewDecoder().String(r.text)
		if err != nil {
			return fmt.Errorf("%s: cannot read the text as %s: %w", r.name, r.Encoding, err)
		}
		r.text = text
	}
	r.text = strings.TrimPrefix(r.text, "\ufeff")
	rest := strings.TrimRight(r.text, " \t\r\n\x1a")
	if n := strings.IndexByte(r.text[len(rest):], '\x1a'); n >= 0 {
		r.text = r.text[:len(rest)+n]
	}
	if !strings.Contains(r.text, "\n") { // lines end with CR alone, as on old Macs
		r.text = strings.ReplaceAll(r.text, "\r", "\n")
	}
	return nil
}

// findEncoding sets Encoding to the name of the content's encoding. A byte order mark decides, then
// what is asked for, then the bytes.
func (r *reader) findEncoding(guess bool) error {
	switch {
	case strings.HasPrefix(r.text, "\xff\xfe\x00\x00"):
		return fmt.Errorf("%s: the file is UTF-32; convert it to UTF-8", r.name)
	case strings.HasPrefix(r.text, "\xff\xfe"):
		r.Encoding = utf16LE
	case strings.HasPrefix(r.text, "\xfe\xff"):
		r.Encoding = utf16BE
	case strings.HasPrefix(r.text, "\ufeff"):
		r.Encoding = UTF8
	case r.Encoding != "" && r.Encoding != Auto:
		_, name, err := lookUp(r.Encoding)
		if err != nil {
			return err
		}
		r.Encoding = name
	default:
		if name := nulEncoding(r.text); name != "" {
			return fmt.Errorf("%s: the file seems to be UTF-16 without a byte order mark; "+
				"if so, set data.encoding: %s", r.name, name)
		}
		r.Encoding = UTF8
		if guess && !utf8.ValidString(r.text) {
			return r.guessEncoding()
		}
	}
	return nil
}

// nulEncoding returns the encoding of a text in which every second byte is mostly 0, as in UTF-16 of
// Western languages; empty if it is not so.
func nulEncoding(text string) string {
	head := text[:min(len(text), 4096)]
	var nul [2]int
	for i := range len(head) {
		if head[i] == 0 {
			nul[i%2]++
		}
	}
	switch most := len(head) / 4; {
	case len(head) < 8:
	case nul[1] > most && nul[0] <= nul[1]/8:
		return utf16LE
	case nul[0] > most && nul[1] <= nul[0]/8:
		return utf16BE
	}
	return ""
}

// guessEncoding decides what a text is that is not valid UTF-8. Nearly valid UTF-8 stays UTF-8, so
// its broken lines are reported. Text that is mostly ASCII is windows-1252, and a note says so. Text
// that could be in many encodings is an error.
func (r *reader) guessEncoding() error {
	valid := 0                          // sequences of UTF-8 of several bytes
	high, letters, undefined := 0, 0, 0 // bytes outside them
	for i := 0; i < len(r.text); {
		c, size := utf8.DecodeRuneInString(r.text[i:])
		switch {
		case size > 1:
			valid++
		case c == utf8.RuneError:
			high++
			if strings.IndexByte("\x81\x8d\x8f\x90\x9d", r.text[i]) >= 0 {
				undefined++
			}
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			letters++
		}
		i += size
	}
	if valid > high/2 {
		return nil
	}
	if undefined > 0 || high > letters/2 {
		return fmt.Errorf("%s: the file is not UTF-8, and its encoding cannot be guessed; "+
			"set data.encoding, for example to windows-1251, shift_jis or gbk", r.name)
	}
	r.Encoding = Windows1252
	n, sample := 0, ""
	for line := range strings.Lines(r.text) {
		if n++; !utf8.ValidString(line) {
			sample = line
			break
		}
	}
	if e, _, err := lookUp(Windows1252); err == nil {
		sample, _ = e.NewDecoder().String(sample)
	}
	at := strings.IndexFunc(sample, func(c rune) bool { return c >= utf8.RuneSelf })
	begin := strings.LastIndexAny(sample[:max(at, 0)], " ,;\t\"") + 1
	r.note("the file is not UTF-8 and was read as windows-1252, with %q in line %d; "+
		"if that is wrong, set data.encoding", word(sample[begin:]), n)
	return nil
}

// word returns the beginning of a text up to a separator.
func word(text string) string {
	if n := strings.IndexAny(text, " ,;\t\"\r\n"); n > 0 {
		text = text[:n]
	}
	runes := []rune(text)
	return string(runes[:min(30, len(runes))])
}

// checkText returns an error if a text has bytes that are not in the file's encoding.
func (r *reader) checkText(text string) error {
	if r.Encoding == UTF8 {
		if !utf8.ValidString(text) {
			return errNotUTF8
		}
		return nil
	}
	if strings.ContainsRune(text, utf8.RuneError) { // the decoder's mark of broken bytes
		return fmt.Errorf("the line has bytes that are not %s", r.Encoding)
	}
	return nil
}
