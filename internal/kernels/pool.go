package kernels

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"ptune/internal/process"
)

// Pool runs kernels on a fixed number of threads. A Pool works on one call at a time.
type Pool struct {
	set     set
	workers []*worker
	running atomic.Bool // a call
	next    []counter   // calls of each thread's part that have begun
	ended   sync.WaitGroup
	packed  []float32   // x in tiles, of the product that runs
	shares  []share     // of the product that runs
	scratch [][]float32 // one for each thread
	rested  []time.Time // of each thread
	crowded bool        // there are more threads than CPUs: those that wait let Go's scheduler run others in their place
	sums    [][]float32 // of gradients of keys, for the parts of an attention's way back
}

// counter is alone in its line of the cache.
type counter struct {
	atomic.Int64
	_ [56]byte
}

// worker is a thread beside the caller's. Calls follow each other within microseconds, far less than waking a thread takes, so
// it looks out for the next one a while before it sleeps.
type worker struct {
	pool   *Pool
	work   atomic.Pointer[func()] // what to do, nil when it is done
	asleep atomic.Bool
	wake   chan struct{} // closed when the pool is
}

// patience is how many looks a worker takes before it sleeps, about a tenth of a millisecond. While a call runs it does not sleep.
const patience = 1 << 15

func (w *worker) loop() {
	looks := 0
	for idle := 0; ; idle++ {
		if f := w.work.Load(); f != nil {
			(*f)()
			w.work.Store(nil)
			idle = 0
		}
		if w.pool.running.Load() {
			idle = 0
		}
		if idle < patience {
			if looks++; looks%1024 == 0 {
				w.pool.pass()
			}
			continue
		}
		w.asleep.Store(true)
		if w.work.Load() == nil {
			if _, open := <-w.wake; !open {
				return
			}
		}
		w.asleep.Store(false)
		idle = 0
	}
}

// do hands f over. The worker has nothing else to do.
func (w *worker) do(f *func()) {
	w.work.Store(f)
	if w.asleep.Load() {
		select {
		case w.wake <- struct{}{}:
		default: // awake already
		}
	}
}

// Options say how a pool works.
type Options struct {
	Threads int    // 0: one for each CPU that Go may use
	Kernels string // a set of Names; empty: the fastest here
	Compute DType  // of products: F32, or BF16 to round their inputs to it
}

// New returns a pool with its threads started. Close ends them. The program should call
// process.SpareProcessor with the number of threads: without it Go's scheduler slows them.
func New(o Options) (*Pool, error) {
	s, err := choose(o.Kernels, o.Compute)
	if err != nil {
		return nil, err
	}
	threads, cpus := o.Threads, process.CPUs()
	if threads <= 0 {
		threads = cpus
	}
	p := &Pool{set: s, scratch: make([][]float32, threads), next: make([]counter, threads), rested: make([]time.Time, threads), crowded: threads > cpus}
	for range threads - 1 { // the caller is the last thread
		w := &worker{pool: p, wake: make(chan struct{}, 1)}
		p.workers = append(p.workers, w)
		p.ended.Go(w.loop)
	}
	return p, nil
}

// Close ends the threads of the pool.
func (p *Pool) Close() {
	for _, w := range p.workers {
		close(w.wake)
	}
	p.workers = nil
	p.ended.Wait()
}

// Threads is the number of threads.
func (p *Pool) Threads() int { return len(p.scratch) }

// Kernels is the name of the kernels in use.
func (p *Pool) Kernels() string { return p.set.name }

// Each calls f(thread, i) for 0 <= i < n, shared out over the threads. The calls must not write to the same place. Each thread begins with a
// part of its own, the same ones every time, so that it finds in its core's caches what it left there, and goes on with what is left
// of the others'.
func (p *Pool) Each(n int, f func(thread, i int)) { p.each(n, p.Threads(), f) }

// InOrder is Each for calls that are to begin in their order: they read memory, or the last ones are small for the threads to end together.
func (p *Pool) InOrder(n int, f func(thread, i int)) { p.each(n, 1, f) }

// each has so many parts.
func (p *Pool) each(n, parts int, f func(thread, i int)) {
	if n <= 0 {
		return
	}
	next := p.next[:parts]
	for i := range next {
		next[i].Store(0)
	}
	begin := func(part int) int64 { return int64(n * part / parts) }
	var broken atomic.Pointer[any] // what a thread panicked with: the caller can do something about it, the thread cannot
	loop := func(thread int) {
		defer func() {
			if r := recover(); r != nil {
				broken.Store(&r)
			}
		}()
		for k := range parts {
			part := (thread + k) % parts
			for i := begin(part) + next[part].Add(1) - 1; i < begin(part+1); i = begin(part) + next[part].Add(1) - 1 {
				f(thread, int(i))
				p.rest(thread)
			}
		}
	}
	p.running.Store(true)
	defer p.running.Store(false)
	helpers := p.workers[:min(n-1, len(p.workers))]
	for t, w := range helpers {
		f := func() { loop(t + 1) }
		w.do(&f)
	}
	loop(0)
	for _, w := range helpers {
		for look := 1; w.work.Load() != nil; look++ {
			if look > 1<<12 || look%1024 == 0 { // it has been taken off its CPU: another program may want this one as well
				p.pass()
			}
		}
	}
	if r := broken.Load(); r != nil {
		panic(*r)
	}
}

// pass lets another thread have this one's CPU.
func (p *Pool) pass() {
	if p.crowded {
		runtime.Gosched()
	}
	yield()
}

// rest passes by Go's scheduler, which otherwise, after 10 ms, takes the processor of a goroutine each time it finds it in C (retake in
// Go 1.26's runtime/proc.go).
func (p *Pool) rest(thread int) {
	if now := time.Now(); now.Sub(p.rested[thread]) > 4*time.Millisecond {
		runtime.Gosched()
		p.rested[thread] = now
	}
}

// Peak measures what the CPU's multiply-adds of f32 do at most, in FLOPs a second of all threads; 0 without C kernels.
func (p *Pool) Peak() float64 {
	if p.set.peak == nil {
		return 0
	}
	x := make([]float32, 64)
	for i := range x {
		x[i] = 1 / float32(3+i)
	}
	done := make([]float64, p.Threads())
	begin := time.Now()
	p.Each(p.Threads(), func(_, i int) { done[i] = p.set.peak(2e7, x) })
	took, sum := time.Since(begin).Seconds(), 0.0
	for _, d := range done {
		sum += d
	}
	return sum / took
}

// rows calls f(from, to) for ranges of n rows; each row costs about cost scalar operations.
func (p *Pool) rows(n, cost int, f func(from, to int)) {
	step := max(1, 1<<15/max(cost, 1)) // enough work that handing it over does not matter
	p.Each((n+step-1)/step, func(_, i int) { f(i*step, min(n, (i+1)*step)) })
}

// rooms makes each thread's scratch at least n floats. All of it is there before a call begins: which threads come to work in
// it differs from run to run.
func (p *Pool) rooms(n int) {
	for i := range p.scratch {
		grow(&p.scratch[i], n)
	}
}
