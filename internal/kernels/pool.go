package kernels

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"ptune/internal/process"
)

// Pool runs kernels on a fixed number of threads. It runs one call at a time.
type Pool struct {
	set     set
	workers []*worker
	running atomic.Bool // a call of method each is running
	next    []counter   // calls of each thread's part that have begun
	ended   sync.WaitGroup
	packed  []float32   // x of the running product, packed
	shares  []share     // of the running product
	scratch [][]float32 // one for each thread
	floats  [][]float32 // panels of a quantised weight, one for each thread
	paired  []float32   // of ProductBack: gradients in the order in which a weight is stored
	rested  []time.Time // when each thread last called Go's scheduler
	crowded bool        // more threads than CPUs: a waiting thread lets Go's scheduler run others
	sums    [][]float32 // gradients of keys in AttendBack
}

// counter has a cache line of its own.
type counter struct {
	atomic.Int64
	_ [56]byte
}

// worker is a thread beside the caller's. Calls follow each other within microseconds, and waking a
// thread takes far longer. So a worker polls for the next call for a while before it sleeps.
type worker struct {
	pool   *Pool
	work   atomic.Pointer[func()] // nil when done
	asleep atomic.Bool
	wake   chan struct{} // closed when the pool is
}

// patience is how often a worker polls before it sleeps, about 0.1 ms. It does not sleep while a call
// runs.
const patience = 1 << 15

func (w *worker) loop() {
	polls := 0
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
			if polls++; polls%1024 == 0 {
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

// do gives f to the worker, which must be idle.
func (w *worker) do(f *func()) {
	w.work.Store(f)
	if w.asleep.Load() {
		select {
		case w.wake <- struct{}{}:
		default: // awake already
		}
	}
}

// Options are what New needs to know.
type Options struct {
	Threads int    // 0: one for each CPU of process.CPUs
	Kernels string // one of Names; empty: the fastest
	Compute DType  // F32, or BF16 to round the inputs of products to BF16
}

// New returns a pool with its threads started. Close ends them. The program should call
// process.SpareProcessor with the number of threads: without it Go's scheduler slows them.
func New(o Options) (*Pool, error) {
	s, err := findSet(o.Kernels, o.Compute)
	if err != nil {
		return nil, err
	}
	threads, cpus := o.Threads, process.CPUs()
	if threads <= 0 {
		threads = cpus
	}
	p := &Pool{
		set:     s,
		scratch: make([][]float32, threads),
		floats:  make([][]float32, threads),
		next:    make([]counter, threads),
		rested:  make([]time.Time, threads),
		crowded: threads > cpus,
	}
	for range threads - 1 { // the caller is the last thread
		w := &worker{pool: p, wake: make(chan struct{}, 1)}
		p.workers = append(p.workers, w)
		p.ended.Go(w.loop)
	}
	return p, nil
}

// Close ends the pool's threads.
func (p *Pool) Close() {
	for _, w := range p.workers {
		close(w.wake)
	}
	p.workers = nil
	p.ended.Wait()
}

// Threads returns the number of threads.
func (p *Pool) Threads() int { return len(p.scratch) }

// Kernels returns the name of the kernel set.
func (p *Pool) Kernels() string { return p.set.name }

// Each calls f(thread, i) for 0 <= i < n on all threads. The calls must not write to the same memory.
// Each thread begins with its own part of the calls, the same in every Each, so that it finds in its
// core's caches what it left there. Then it helps with the other parts. If a call panics, so does
// Each.
func (p *Pool) Each(n int, f func(thread, i int)) { p.each(n, p.Threads(), f) }

// InOrder is Each with all calls begun in ascending order. Use it if the calls read memory in sequence,
// or if the last calls are smaller so that all threads end together.
func (p *Pool) InOrder(n int, f func(thread, i int)) { p.each(n, 1, f) }

// each is Each with the calls cut into that many parts.
func (p *Pool) each(n, parts int, f func(thread, i int)) {
	if n <= 0 {
		return
	}
	next := p.next[:parts]
	for i := range next {
		next[i].Store(0)
	}
	begin := func(part int) int64 { return int64(n * part / parts) }
	var broken atomic.Pointer[any] // a thread's panic, for the caller, which can handle it
	loop := func(thread int) {
		defer func() {
			if r := recover(); r != nil {
				broken.Store(&r)
			}
		}()
		for k := range parts {
			part := (thread + k) % parts
			for {
				i := begin(part) + next[part].Add(1) - 1
				if i >= begin(part+1) {
					break
				}
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
		for poll := 1; w.work.Load() != nil; poll++ {
			// After 4096 polls the worker has probably lost its CPU: let it have this one.
			if poll > 1<<12 || poll%1024 == 0 {
				p.pass()
			}
		}
	}
	if r := broken.Load(); r != nil {
		panic(*r)
	}
}

// pass gives this thread's CPU to another thread.
func (p *Pool) pass() {
	if p.crowded {
		runtime.Gosched()
	}
	yield()
}

// rest calls Go's scheduler every few milliseconds. If a goroutine runs for 10 ms without such a call,
// the scheduler takes its processor each time it finds the goroutine in C (retake in Go 1.26's
// runtime/proc.go).
func (p *Pool) rest(thread int) {
	if now := time.Now(); now.Sub(p.rested[thread]) > 4*time.Millisecond {
		runtime.Gosched()
		p.rested[thread] = now
	}
}

// Peak measures the most f32 multiply-adds that all threads can do, in FLOPs per second. It returns 0
// without C kernels.
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

// rows calls f(from, to) for ranges of n rows on all threads. cost is about the number of scalar
// operations of a row.
func (p *Pool) rows(n, cost int, f func(from, to int)) {
	step := max(1, 1<<15/max(cost, 1)) // operations of a call: much more than starting one costs
	p.Each((n+step-1)/step, func(_, i int) { f(i*step, min(n, (i+1)*step)) })
}

// needScratch makes each thread's scratch at least n floats. All threads get theirs before a call
// begins, so that memory does not depend on which threads take part.
func (p *Pool) needScratch(n int) {
	for i := range p.scratch {
		grow(&p.scratch[i], n)
	}
}
