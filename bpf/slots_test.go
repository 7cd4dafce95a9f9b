package bpf

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kaon-project/kaon/bpf/tables"
)

// results mirrors struct slots of slots.bpf.c.
type results struct {
	One, Ns                                                              [6]uint64
	One020, OneMinus18, NsDefault, NsSeconds, Bounds3, Bounds1, Bounds63 uint64
}

// upper returns the smallest i for which v <= 2^(i/2^schema) units, by exact
// comparison of v^(2^schema) with 2^i * per^(2^schema). It shares nothing with what is tested.
type reference struct {
	per    [6]*big.Int // per^(2^schema)
	values [6]*big.Int
}

func newReference(per int64) *reference {
	r := &reference{}
	for schema := range r.per {
		r.per[schema] = new(big.Int).Exp(big.NewInt(per), big.NewInt(1<<schema), nil)
		r.values[schema] = new(big.Int)
	}
	return r
}

func (r *reference) upper(v uint64, schema int) int64 {
	power := r.values[schema].SetUint64(v)
	for range schema {
		power.Mul(power, power)
	}
	// 2^i >= power/per: the bit lengths give i or one less.
	i := int64(power.BitLen() - r.per[schema].BitLen() - 1)
	for {
		left, right := power, r.per[schema]
		if i >= 0 {
			right = new(big.Int).Lsh(right, uint(i))
		} else {
			left = new(big.Int).Lsh(left, uint(-i))
		}
		if left.Cmp(right) <= 0 {
			return i
		}
		i++
	}
}

// slot is what kaon.h promises.
func (r *reference) slot(v uint64, schema, low, high int) uint64 {
	if v == 0 {
		return 0
	}
	i := r.upper(v, schema) - int64(low)<<schema
	return uint64(min(max(i, 0), int64(high-low)<<schema+1))
}

func interestingValues() []uint64 {
	var values []uint64
	add := func(v uint64) {
		for d := uint64(0); d <= 4; d++ {
			values = append(values, v+d-2)
		}
	}
	for v := range uint64(2000) {
		values = append(values, v)
	}
	for _, unit := range tables.Units {
		// Thresholds 2^(i/32) units, by floating point with 300 bits: no matter if one off.
		step := new(big.Float).SetPrec(300).SetInt64(2)
		for range 5 {
			step.Sqrt(step)
		}
		threshold := new(big.Float).SetPrec(300).SetMantExp(big.NewFloat(float64(unit.Per)), -31)
		for range 32 * 96 {
			v, _ := threshold.Uint64()
			if v == math.MaxUint64 {
				break
			}
			add(v)
			threshold.Mul(threshold, step)
		}
	}
	for shift := range 64 {
		add(1 << shift)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 8000 {
		values = append(values, random.Uint64()>>random.IntN(64))
	}
	values = append(values, math.MaxUint64, math.MaxUint64-1, math.MaxInt64, math.MaxInt64+1)
	slices.Sort(values)
	return slices.Compact(values)
}

func TestSlotsAreExact(t *testing.T) {
	testSlots(t, "slots.bpf.o")
}

func testSlots(t *testing.T, object string) {
	const batch = 64
	collection := load(t, object, nil)
	one, ns := newReference(1), newReference(1e9)
	var bounds63 []uint64
	for _, n := range []uint64{0, 100, 200, 300, 1000, 1 << 20, 1 << 40} {
		bounds63 = append(bounds63, n, n+3, n+5, n+11, n+12, n+13, n+50, n+99)
	}
	bounds63 = append(bounds63, 1<<60, 1<<60+1, 1<<61, 1<<61+7, 1<<62, 1<<62+1, 1<<63-2)
	first := func(bounds []uint64, v uint64) uint64 {
		for i, b := range bounds {
			if v <= b {
				return uint64(i)
			}
		}
		return uint64(len(bounds))
	}
	all := interestingValues()
	// The bounds themselves are values of interest, too.
	for _, b := range bounds63 {
		all = append(all, b-1, b, b+1)
	}
	t.Logf("%d values", len(all))
	wrong := 0
	for len(all) > 0 {
		var values [batch]uint64
		n := copy(values[:], all)
		all = all[n:]
		if err := collection.Variables["values"].Set(values); err != nil {
			t.Fatal(err)
		}
		run(t, collection.Programs["slots"])
		var got [batch]results
		if err := collection.Variables["results"].Get(&got); err != nil {
			t.Fatal(err)
		}
		for i, v := range values[:n] {
			var want results
			for schema := range 6 {
				want.One[schema] = one.slot(v, schema, -1, 64)
				want.Ns[schema] = ns.slot(v, schema, -31, 35)
			}
			want.One020 = one.slot(v, 1, 0, 20)
			want.OneMinus18 = one.slot(v, 0, -1, 8)
			want.NsDefault = ns.slot(v, 2, -20, 6)
			want.NsSeconds = ns.slot(v, 3, 0, 10)
			want.Bounds3 = first([]uint64{1, 10, 1000}, v)
			want.Bounds1 = first([]uint64{5}, v)
			want.Bounds63 = first(bounds63, v)
			if got[i] != want {
				t.Errorf("slots of %d:\n got %+v\nwant %+v", v, got[i], want)
				if wrong++; wrong > 5 {
					t.FailNow()
				}
			}
		}
	}
}
