package kernels

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Pool runs kernels on a fixed number of threads. A Pool works on one call at a time.
type Pool struct {
	set     set
	work    []chan func()
	workers sync.WaitGroup
	packed  []float32   // x in tiles, of the product that runs
	scratch [][]float32 // one for each thread
}

// New makes a pool of that many threads (0: one for each CPU that the scheduler may use) with the kernels of that name
// (empty: the fastest here). Close ends its threads.
func New(threads int, kernels string) (*Pool, error) {
	s, err := choose(kernels)
	if err != nil {
		return nil, err
	}
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	p := &Pool{set: s, scratch: make([][]float32, threads)}
	for range threads - 1 { // the caller is the last thread
		c := make(chan func())
		p.work = append(p.work, c)
		p.workers.Add(1)
		go func() {
			defer p.workers.Done()
			for f := range c {
				f()
			}
		}()
	}
	return p, nil
}

// Close ends the threads of the pool.
func (p *Pool) Close() {
	for _, c := range p.work {
		close(c)
	}
	p.work = nil
	p.workers.Wait()
}

// Threads is the number of threads.
func (p *Pool) Threads() int { return len(p.scratch) }

// Kernels is the name of the kernels in use.
func (p *Pool) Kernels() string { return p.set.name }

// Each calls f(thread, i) for 0 <= i < n, shared out over the threads. The calls must not write to the same place.
func (p *Pool) Each(n int, f func(thread, i int)) {
	if n <= 0 {
		return
	}
	var next atomic.Int64
	var broken atomic.Pointer[any] // what a thread panicked with: the caller can do something about it, the thread cannot
	loop := func(thread int) {
		defer func() {
			if r := recover(); r != nil {
				broken.Store(&r)
			}
		}()
		for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
			f(thread, int(i))
		}
	}
	var done sync.WaitGroup
	for t := range min(n-1, len(p.work)) {
		done.Add(1)
		p.work[t] <- func() { loop(t + 1); done.Done() }
	}
	loop(0)
	done.Wait()
	if r := broken.Load(); r != nil {
		panic(*r)
	}
}

// rows calls f(from, to) for ranges of n rows; each row costs about cost scalar operations.
func (p *Pool) rows(n, cost int, f func(from, to int)) {
	step := max(1, 1<<15/max(cost, 1)) // enough work that handing it over does not matter
	p.Each((n+step-1)/step, func(_, i int) { f(i*step, min(n, (i+1)*step)) })
}

// room is scratch of n floats that belongs to one thread.
func (p *Pool) room(thread, n int) []float32 {
	if cap(p.scratch[thread]) < n {
		p.scratch[thread] = make([]float32, n)
	}
	return p.scratch[thread][:n]
}
