package exposition

import (
	"errors"
	"fmt"
	"math"

	"github.com/kaon-project/kaon/internal/program"
)

// defaultClassic is how many classic buckets (without +Inf) a histogram shows at most unless it says otherwise.
const defaultClassic = 27

// slotCount returns the number of slots that buckets describe.
func slotCount(b *program.Buckets) (int, error) {
	switch {
	case b == nil:
		return 0, errors.New("a histogram needs buckets")
	case len(b.Upper) > 0:
		for i := 1; i < len(b.Upper); i++ {
			if !(b.Upper[i] > b.Upper[i-1]) {
				return 0, fmt.Errorf("bounds must ascend, but %v follows %v", b.Upper[i], b.Upper[i-1])
			}
		}
		return b.Slots(), nil
	case len(b.Bounds) > 0:
		for i := 1; i < len(b.Bounds); i++ {
			if b.Bounds[i] <= b.Bounds[i-1] {
				return 0, fmt.Errorf("bounds must ascend, but %d follows %d", b.Bounds[i], b.Bounds[i-1])
			}
		}
		return b.Slots(), nil
	case b.Schema < 0 || b.Schema > 8:
		return 0, fmt.Errorf("schema %d is not in 0..8", b.Schema)
	case b.Low >= b.High || b.Low < -1022 || b.High > 1023:
		return 0, fmt.Errorf("the range 2^%d..2^%d is empty or exceeds a float64", b.Low, b.High)
	}
	return b.Slots(), nil
}

// roots are the correctly rounded 2^(k/32), which hold those of the lower schemas.
var roots = [32]float64{
	1.0, 1.0218971486541166, 1.0442737824274138, 1.0671404006768237,
	1.0905077326652577, 1.1143867425958924, 1.1387886347566916, 1.1637248587775775,
	1.189207115002721, 1.215247359980469, 1.241857812073484, 1.2690509571917332,
	1.2968395546510096, 1.3252366431597413, 1.3542555469368927, 1.383909881963832,
	1.4142135623730951, 1.4451808069770467, 1.4768261459394993, 1.5091644275934228,
	1.5422108254079407, 1.5759808451078865, 1.6104903319492543, 1.645755478153965,
	1.681792830507429, 1.718619298122478, 1.7562521603732995, 1.7947090750031072,
	1.8340080864093424, 1.8741676341103, 1.9152065613971474, 1.9571441241754002,
}

// nativeBound returns the upper bound of the native bucket of an index: 2^(index/2^schema).
func nativeBound(index int, schema int8) float64 {
	fraction := index & (1<<schema - 1)
	exponent := index >> schema
	if schema <= 5 {
		return math.Ldexp(roots[fraction<<(5-schema)], exponent)
	}
	return math.Ldexp(math.Exp2(float64(fraction)/float64(int(1)<<schema)), exponent)
}

// classicPlan says which slots the classic buckets of a metric end with.
type classicPlan struct {
	// ends[j] is the last slot that bucket j counts; bounds[j] is its upper bound in the metric's unit.
	ends   []int
	bounds []float64
}

// reset plans the classic buckets of valid b. They are the slots' own bounds or
// a subset of them, so that their counts are exact.
func (p *classicPlan) reset(b *program.Buckets, s *scale) {
	p.ends, p.bounds = p.ends[:0], p.bounds[:0]
	if len(b.Upper) > 0 {
		for slot, upper := range b.Upper {
			p.ends, p.bounds = append(p.ends, slot), append(p.bounds, upper)
		}
		return
	}
	limit := defaultClassic
	if b.MaxClassic > 0 {
		limit = b.MaxClassic
	}
	// The last slot is the overflow: it ends at +Inf.
	last := len(b.Bounds) - 1
	bound := func(slot int) float64 { return s.float(b.Bounds[slot], false) }
	if len(b.Bounds) == 0 {
		last = (b.High - b.Low) << b.Schema
		first := b.Low << b.Schema
		bound = func(slot int) float64 { return nativeBound(first+slot, b.Schema) }
	} else if b.MaxClassic <= 0 {
		limit = len(b.Bounds) // explicit bounds are all wanted
	}
	add := func(slot int) {
		upper := bound(slot)
		// Scaling may round neighbours to the same number; the later one counts both.
		if n := len(p.bounds); n > 0 && p.bounds[n-1] >= upper {
			p.ends[n-1] = slot
			return
		}
		p.ends, p.bounds = append(p.ends, slot), append(p.bounds, upper)
	}

	if len(b.ClassicBounds) > 0 {
		for slot := 0; slot <= last; slot++ {
			if coincides(bound(slot), b.ClassicBounds) {
				add(slot)
			}
		}
		if len(p.ends) > 0 {
			return
		}
	}
	if len(b.Bounds) > 0 {
		// Of more bounds than may be shown every n-th, counted from the last.
		step := (last + limit) / limit
		for slot := last % step; slot <= last; slot += step {
			add(slot)
		}
		return
	}
	// Halve the resolution as native histograms do until few enough bounds are left: those at
	// multiples of the step, and both ends.
	first := b.Low << b.Schema
	for shift := 0; ; shift++ {
		step := 1 << shift
		inner := (first+last-1)>>shift - first>>shift
		if inner+2 > limit && step <= last {
			continue
		}
		if limit > 1 {
			add(0)
			for index := (first>>shift + 1) << shift; index < first+last; index += step {
				if inner+2 <= limit {
					add(index - first)
				}
			}
		}
		add(last)
		return
	}
}

// coincides says whether one of the wanted bounds is this one, but for what
// is lost by writing it down with fewer digits.
func coincides(bound float64, wanted []float64) bool {
	for _, w := range wanted {
		if math.Abs(w-bound) <= 1e-9*math.Abs(bound) {
			return true
		}
	}
	return false
}

// bucketOf returns the classic bucket that a value lies in; len(p.bounds) is +Inf.
func (p *classicPlan) bucketOf(value float64) int {
	for j, bound := range p.bounds {
		if value <= bound {
			return j
		}
	}
	return len(p.bounds)
}

// sum adds four numbers at a time, because a processor can.
func sum(slots []uint64) uint64 {
	var a, b, c, d uint64
	for len(slots) >= 4 {
		a += slots[0]
		b += slots[1]
		c += slots[2]
		d += slots[3]
		slots = slots[4:]
	}
	for _, n := range slots {
		a += n
	}
	return a + b + c + d
}
