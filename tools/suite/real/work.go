// Go at work: goroutines, channels, locks, maps, interfaces, strings, sorting, garbage, stacks that grow, panics out of
// signals, a loop that only a signal stops.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
)

type voice interface {
	sing(note uint32) uint32
}

type robin struct{}

type wren struct{ sung uint32 }

func (robin) sing(note uint32) uint32 { return note*3 + 1 }

func (w *wren) sing(note uint32) uint32 {
	w.sung++
	return note ^ w.sung
}

func choir(rounds int) uint32 {
	voices := []voice{robin{}, &wren{}, robin{}}
	note := uint32(1)
	for i := 0; i < rounds; i++ {
		note = voices[i%3].sing(note)
	}
	return note
}

type tree struct{ left, right *tree }

func grow(depth int) *tree {
	if depth == 0 {
		return &tree{}
	}
	return &tree{grow(depth - 1), grow(depth - 1)}
}

func (t *tree) size() int {
	if t.left == nil {
		return 1
	}
	return 1 + t.left.size() + t.right.size()
}

func garbage(rounds int) int {
	kept := grow(15)
	sum := 0
	for i := 0; i < rounds; i++ {
		sum += grow(9).size()
	}
	return sum + kept.size()
}

func words(rounds int) string {
	names := strings.Fields("mocking bird sings other voices never guest host")
	counts := map[string]int{}
	state := uint32(5)
	for i := 0; i < rounds; i++ {
		state = state*1103515245 + 12345
		counts[fmt.Sprint(names[state>>16&7], state>>20&63)]++
	}
	list := make([]string, 0, len(counts))
	for word := range counts {
		list = append(list, word)
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		return counts[a] > counts[b] || counts[a] == counts[b] && a < b
	})
	return regexp.MustCompile(`(\w)(\d+)`).ReplaceAllString(strings.Join(list[:5], " "), "$2$1")
}

// Numbers through a chain of goroutines.
func relay(rounds, stages int) int {
	first := make(chan int)
	last := first
	for i := 0; i < stages; i++ {
		from, to := last, make(chan int)
		go func() {
			for number := range from {
				to <- number + 1
			}
			close(to)
		}()
		last = to
	}
	go func() {
		for i := 0; i < rounds; i++ {
			first <- i
		}
		close(first)
	}()
	sum := 0
	for number := range last {
		sum += number
	}
	return sum
}

func locked(rounds int) int {
	var lock sync.Mutex
	var group sync.WaitGroup
	sum := 0
	for id := 1; id <= 8; id++ {
		group.Add(1)
		go func(amount int) {
			defer group.Done()
			for i := 0; i < rounds; i++ {
				lock.Lock()
				sum += amount
				lock.Unlock()
			}
		}(id)
	}
	group.Wait()
	return sum
}

// On one processor the loop, which calls nothing, ends only if a signal interrupts it, so that the other goroutine is run:
// after 10 ms, so few rounds.
func preempted(rounds int) int {
	for i := 0; i < rounds; i++ {
		var stop uint32
		go func() { atomic.StoreUint32(&stop, 1) }()
		for atomic.LoadUint32(&stop) == 0 {
		}
	}
	return rounds
}

func fault(number int, numbers []int, node *tree) (result int) {
	defer func() {
		if problem := recover(); problem != nil {
			result = len(fmt.Sprint(problem))
		}
	}()
	if number%5 == 4 {
		node = nil
	}
	if node.left != nil {
		return number
	}
	return numbers[number%7] / (number % 3)
}

func faults(rounds int) int {
	numbers, leaf, sum := []int{5, 4, 3, 2, 1}, &tree{}, 0
	for i := 0; i < rounds; i++ {
		sum = (sum*31 + fault(i, numbers, leaf)) % 1000003
	}
	return sum
}

// Each goroutine's stack is moved some times on the way down.
func deep(goroutines, depth int) int {
	var down func(level int) int
	down = func(level int) int {
		var room [16]int
		if level == 0 {
			return 0
		}
		room[level%16] = level
		return down(level-1) + room[level%16]%3
	}
	results := make(chan int)
	for i := 0; i < goroutines; i++ {
		go func() { results <- down(depth) }()
	}
	sum := 0
	for i := 0; i < goroutines; i++ {
		sum += <-results
	}
	return sum
}

type row struct {
	ID   int     `json:"id"`
	Name string  `json:"name"`
	Half float64 `json:"half"`
}

func rows(count int) string {
	list := make([]row, count)
	for i := range list {
		list[i] = row{i, fmt.Sprintf("row %d", i), float64(i) / 2}
	}
	text, err := json.Marshal(list)
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	return fmt.Sprintf("%x %v", sha256.Sum256(text), err)
}

func main() {
	// More would only take turns: the machine has one.
	runtime.GOMAXPROCS(1)
	fmt.Println(choir(4000000), garbage(1500), words(60000))
	fmt.Println(relay(20000, 5), locked(100000), preempted(5), faults(20000), deep(20, 20000))
	fmt.Println(rows(6000))
}
