package tensorfile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"ptune/internal/files"
)

// Limits of a header. maxHeader, in bytes, is that of huggingface_hub.
const (
	maxHeader  = 25_000_000
	maxTensors = 1_000_000
	maxDims    = 8
	maxName    = 512
)

// checkHeader refuses headers that the safetensors library should refuse but accepts: not an
// object, duplicate names or fields, invalid UTF-8, huge counts.
func checkHeader(file []byte) error {
	if len(file) < 8 {
		return fmt.Errorf("the file is %d bytes, want at least 8: %s", len(file), cutOff)
	}
	n := binary.LittleEndian.Uint64(file)
	if err := files.Wrong(file); err != nil && (n > uint64(len(file)-8) || n == 0 || file[8] != '{') {
		return err
	}
	if text := file[:min(len(file), 20)]; n > maxHeader && printable(text) {
		return fmt.Errorf("it is not a safetensors file: it begins with the text %q", text)
	}
	if n > maxHeader {
		return fmt.Errorf("the header would be %d bytes, want at most %d; is this a safetensors file?",
			n, maxHeader)
	}
	if n > uint64(len(file)-8) {
		return fmt.Errorf("the header would be %d bytes, but the file ends after %d: %s", n, len(file)-8, cutOff)
	}
	header := file[8 : 8+n]
	if n == 0 || header[0] != '{' {
		return errors.New("the header does not begin with {; is this a safetensors file?")
	}
	if !utf8.Valid(header) {
		return errors.New("the header is not valid UTF-8")
	}
	if loneSurrogate(header) {
		return errors.New(`the header has half of a surrogate pair (\ud800 to \udfff)`)
	}
	dec := json.NewDecoder(bytes.NewReader(header))
	dec.UseNumber()
	if err := checkValue(dec, "the header", 0); err != nil {
		return err
	}
	if rest := header[dec.InputOffset():]; len(bytes.Trim(rest, " ")) > 0 {
		return errors.New("the header has text after its last }")
	}
	return nil
}

// cutOff ends the error about a file that lacks its end.
const cutOff = "it is cut off; download or copy it again"

// checkSize refuses a file whose size is not the one that its tensors need.
func checkSize(file []byte) error {
	n := 8 + binary.LittleEndian.Uint64(file)
	var tensors map[string]struct {
		Offsets [2]uint64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(file[8:n], &tensors); err != nil {
		return nil // the library says what is wrong
	}
	var data uint64
	for _, t := range tensors {
		data = max(data, t.Offsets[1])
	}
	switch has := uint64(len(file)) - n; {
	case data > has:
		return fmt.Errorf("its tensors have %d bytes, but the file has %d of them: %s", data, has, cutOff)
	case data < has:
		return fmt.Errorf("the file has %d bytes after the %d bytes of its tensors: download or copy it again",
			has-data, data)
	}
	return nil
}

// printable reports whether all bytes are characters of ASCII or spaces.
func printable(text []byte) bool {
	return !bytes.ContainsFunc(text, func(r rune) bool { return r > '~' || r < ' ' && !unicode.IsSpace(r) })
}

// loneSurrogate reports whether an escape in the JSON text is half of a surrogate pair. Go's
// decoder silently replaces it by U+FFFD.
func loneSurrogate(text []byte) bool {
	escape := func(i int) rune { // the character of the \u escape at i, or -1
		if i+6 > len(text) || text[i] != '\\' || text[i+1] != 'u' {
			return -1
		}
		n, err := strconv.ParseUint(string(text[i+2:i+6]), 16, 16)
		if err != nil {
			return -1
		}
		return rune(n)
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		if c := escape(i); utf16.IsSurrogate(c) {
			if utf16.DecodeRune(c, escape(i+6)) == utf8.RuneError {
				return true
			}
			i += 10
		}
		i++ // the escaped character
	}
	return false
}

// checkValue checks one JSON value: unique keys, no deeper than a tensor's shape, limited counts.
func checkValue(dec *json.Decoder, where string, depth int) error {
	t, err := dec.Token()
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("the header is not JSON: %w", err)
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth > 3 {
		return errors.New("the header is nested too deeply")
	}
	keys := map[string]bool{}
	for n := 0; dec.More(); n++ {
		if delim == '[' {
			if n >= maxDims {
				return fmt.Errorf("%s has a list of more than %d numbers", where, maxDims)
			}
			if err := checkValue(dec, where, depth+1); err != nil {
				return err
			}
			continue
		}
		key, err := dec.Token()
		if err != nil {
			return fmt.Errorf("the header is not JSON: %w", err)
		}
		name := key.(string)
		switch {
		case keys[name]:
			return fmt.Errorf("%s has the duplicate name %q", where, shorten(name))
		case len(name) > maxName && depth == 0:
			return fmt.Errorf("a tensor name has %d bytes, want at most %d", len(name), maxName)
		case n >= maxTensors:
			return fmt.Errorf("more than %d tensors", maxTensors)
		}
		for _, c := range name {
			if c < ' ' || c == utf8.RuneError {
				return fmt.Errorf("the name %q has a control character or invalid UTF-8",
					shorten(name))
			}
		}
		keys[name] = true
		if err := checkValue(dec, fmt.Sprintf("%q", shorten(name)), depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token() // the closing delimiter
	return err
}
