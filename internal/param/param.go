// Package param has the types of what is trained inside a model (a LoRA's factors, all weights):
// named arrays with their gradients. Models compute with them, the training loop changes them,
// package prompt initialises them and reads and writes their files.
package param

// Tensor is a trained array.
type Tensor struct {
	Name   string // of the module and the weight in it, as transformers and PEFT have them
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

// Module is a matrix [Out, In] of a model's layers beside which a LoRA can be put.
type Module struct {
	Name    string // in transformers
	Out, In int
}

// The names of a LoRA's two factors are the module's with these added.
const (
	LoRAA = ".lora_A.weight" // [rank, In]
	LoRAB = ".lora_B.weight" // [Out, rank]
)
