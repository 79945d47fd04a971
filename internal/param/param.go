// Package param has the one type of what is trained inside a model (a LoRA's factors, all weights):
// named arrays with their gradients. Models compute with them, the training loop changes them,
// package prompt reads and writes their files.
package param

// Tensor is a trained array.
type Tensor struct {
	Name   string // of the module and the weight in it, as transformers has them
	Shape  []int
	Values []float32
	Grad   []float32 // gradients are added to it
}

// New returns a tensor of zeros.
func New(name string, shape ...int) *Tensor {
	n := 1
	for _, s := range shape {
		n *= s
	}
	return &Tensor{Name: name, Shape: shape, Values: make([]float32, n), Grad: make([]float32, n)}
}
