package tokenize

import "strings"

// Decode returns the text of ids, without special tokens. Bytes that are not valid UTF-8 become U+FFFD.
func (t *Tokenizer) Decode(ids []int32) string {
	if text := t.decode(ids); text != "" {
		return text
	}
	// The library returns a C string, and nothing for a text that contains NUL. Such a text is decoded
	// twice with other bytes instead: where the two texts differ, there is a NUL.
	b, other := []byte(t.decode(t.withoutNUL(ids, 1))), t.decode(t.withoutNUL(ids, 2))
	for i := range min(len(b), len(other)) {
		if b[i] != other[i] {
			b[i] = 0
		}
	}
	return string(b)
}

func (t *Tokenizer) decode(ids []int32) string {
	u := make([]uint32, len(ids))
	for i, id := range ids {
		u[i] = uint32(id)
	}
	return t.lib.Decode(u, true)
}

// How vocabularies spell the bytes 0, 1 and 2: as a token that stands for one byte, or as a character
// of byte-level pieces, as in GPT-2.
var (
	byteToken     = [...]string{"<0x00>", "<0x01>", "<0x02>"}
	byteCharacter = [...]string{"\u0100", "\u0101", "\u0102"}
)

// withoutNUL returns ids with tokens for another byte in place of those for NUL.
func (t *Tokenizer) withoutNUL(ids []int32, instead int) (other []int32) {
	_, byteTokens := t.ids[byteToken[0]]
	for _, id := range ids {
		switch p := t.pieces[id]; {
		case p == byteToken[0]:
			other = append(other, t.spell(byteToken[instead])...)
		case !byteTokens && strings.Contains(p, byteCharacter[0]):
			for _, c := range strings.ReplaceAll(p, byteCharacter[0], byteCharacter[instead]) {
				other = append(other, t.spell(string(c))...)
			}
		default:
			other = append(other, id)
		}
	}
	return other
}

// spell returns the token of a piece; none if the vocabulary lacks it.
func (t *Tokenizer) spell(piece string) []int32 {
	if id, ok := t.ids[piece]; ok {
		return []int32{id}
	}
	return nil
}

// Unsettled returns how many of the last ids have a text that the next token may change: tokens such as
// <0xE2>. Those that follow each other become the characters that their bytes encode, or U+FFFD for
// each byte if any is wrong. Special tokens between them have no text.
func (t *Tokenizer) Unsettled(ids []int32) (n int) {
	for i := len(ids) - 1; i >= 0; i-- {
		switch {
		case isByte(t.pieces[ids[i]]):
			n = len(ids) - i
		case !t.special[ids[i]]:
			return n
		}
	}
	return n
}

// isByte reports whether a piece stands for one byte, like <0x0A>.
func isByte(piece string) bool {
	return len(piece) == 6 && strings.HasPrefix(piece, "<0x") && piece[5] == '>'
}
