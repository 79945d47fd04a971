package model

import "ptune/internal/kernels"

// pageRows is how many of a text's rows lie on one page. It is a multiple of the rows that
// kernels.Attend works on together, so a text that lies on several pages is cut where it would be
// cut anyway, and its results are the same to the bit.
const pageRows = 48

// pages is the memory of a key/value cache. A page has pageRows rows of keys and values for each key
// head of each layer, in the order [layers, heads, pageRows]. Page p of a layer and head begins
// p × stride rows after page 0, so operators address a row on any page by one number.
type pages struct {
	stride   int       // rows of a page
	width    int       // values of a row: a key and its value
	values   []float32 // of all pages; grows if the system does not lend address space
	most     int       // pages
	touched  int       // pages that have been used
	unused   []int32   // those of them that are free
	reserved int       // promised, not taken
	release  func()    // gives lent address space back; nil: none was lent
}

// open reserves address space for at most limit bytes. The memory is returned by close
// or once d is unreachable.
func (p *pages) open(d *Decoder, limit int64) {
	p.most = int(min(limit/int64(p.bytes()), (1<<31-1)/int64(p.stride))) // rows are counted in an int32
	p.values, p.release = kernels.Reserve(d, p.most*p.bytes()/4)
}

// close gives the memory back.
func (p *pages) close() {
	if p.release != nil {
		p.release()
	}
	p.values, p.release, p.most = nil, nil, 0
}

// bytes returns the size of a page.
func (p *pages) bytes() int { return 4 * p.stride * p.width }

// pagesFor returns the number of pages for rows that follow each other.
func pagesFor(rows int) int { return (rows + pageRows - 1) / pageRows }

// free returns the number of pages that are neither taken nor reserved.
func (p *pages) free() int { return p.most - p.touched + len(p.unused) - p.reserved }

// take returns a page. moved reports that values was replaced.
func (p *pages) take() (page int32, moved bool) {
	if n := len(p.unused); n > 0 {
		page, p.unused = p.unused[n-1], p.unused[:n-1]
		return page, false
	}
	size := p.bytes() / 4
	if len(p.values) < (p.touched+1)*size {
		more := kernels.Floats(min(p.most, 2*p.touched+8) * size)
		copy(more, p.values)
		p.values, moved = more, true
	}
	p.touched++
	return int32(p.touched - 1), moved
}

// give takes pages back.
func (p *pages) give(list []int32) { p.unused = append(p.unused, list...) }
