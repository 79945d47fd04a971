package batch

import "errors"

// Text is a text to continue.
type Text struct {
	Prompt int     // the handle of its soft prompt, or NoPrompt
	IDs    []int32 // may be empty after a soft prompt
	Room   int     // the most tokens that it will grow by
}

// NoPrompt is the prompt of a text that the base model continues by itself.
const NoPrompt = -1

// ErrFull is the error of a decoder that has not enough memory now for the keys and values of a text.
var ErrFull = errors.New("the key/value cache is full")

// Row is a token of a tree of continuations.
type Row struct {
	Tree   int     // the tree's handle
	Parent int     // the row before it, counted from 0 in the order in which the tree's were added; -1: none
	ID     int32   // the token
	Asked  []int32 // tokens whose −log p after this row is asked for, no two equal
}
