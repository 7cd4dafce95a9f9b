package exposition

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/kaon-project/kaon/internal/program"
)

func TestScaledNumbers(t *testing.T) {
	f := func(num, den, raw uint64, signed bool, want string) {
		t.Helper()
		s := newScale(program.Scale{Num: num, Den: den})
		if got := string(s.append(nil, raw, signed)); got != want {
			t.Errorf("%d * %d/%d: got %s, want %s", raw, num, den, got, want)
		}
	}
	minusOne := uint64(math.MaxUint64)
	f(0, 0, 0, false, "0")
	f(0, 0, math.MaxUint64, false, "18446744073709551615")
	f(0, 0, minusOne, true, "-1")
	f(0, 0, 1<<63, true, "-9223372036854775808")
	f(4096, 1, 3, false, "12288")
	f(4096, 0, math.MaxUint64, false, "75557863725914323415040")
	f(1, 1e9, 0, false, "0")
	f(1, 1e9, 1, false, "0.000000001")
	f(1, 1e9, 1500000000, false, "1.5")
	f(1, 1e9, 3000000000, false, "3")
	f(1, 1e9, minusOne, true, "-0.000000001")
	f(1, 1e9, math.MaxUint64, false, "18446744073.709551615")
	f(1, 4, 3, false, "0.75")
	f(2, 1000, 5, false, "0.01")
	f(1, 3, 1, false, "0.3333333333333333")
	f(1, 1024, math.MaxUint64, false, "18014398509481983.9990234375")
	f(math.MaxUint64, 10, math.MaxUint64, false, "3.402823669209385e+37")
	f(math.MaxUint64, 1, math.MaxUint64, false, "3.402823669209385e+38") // beyond 10^38
}

func TestScaledNumbersAreExact(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		num, den := random.Uint64()>>random.IntN(64), powerOfTen(random.IntN(12))<<random.IntN(8)
		raw := random.Uint64() >> random.IntN(64)
		num = max(num>>20, 1)
		s := newScale(program.Scale{Num: num, Den: den})
		want := new(big.Rat).SetFrac(
			new(big.Int).Mul(new(big.Int).SetUint64(raw), new(big.Int).SetUint64(num)), new(big.Int).SetUint64(den))
		text := string(s.append(nil, raw, false))
		got, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("%s is no number", text)
		}
		exact, _ := want.Float64()
		if s.digits >= 0 && got.Cmp(want) != 0 {
			// Only what is beyond a float64's integers is rounded.
			if hi := new(big.Rat).SetUint64(math.MaxUint64); want.Cmp(hi) < 0 {
				t.Fatalf("%d*%d/%d: got %s, want %s", raw, num, den, text, want.FloatString(30))
			}
		}
		if near := s.float(raw, false); math.Abs(near-exact) > 1e-15*exact {
			t.Fatalf("%d*%d/%d: got %v, want %v", raw, num, den, near, exact)
		}
	}
}

func TestMillis(t *testing.T) {
	f := func(ms int64, want string) {
		t.Helper()
		if got := string(appendMillis(nil, ms)); got != want {
			t.Errorf("%d ms: got %s, want %s", ms, got, want)
		}
	}
	f(0, "0.000")
	f(7, "0.007")
	f(1700000000123, "1700000000.123")
	f(-1500, "-1.500")
}

func TestBoundText(t *testing.T) {
	f := func(value float64, openMetrics bool, want string) {
		t.Helper()
		if got := string(appendBound(nil, value, openMetrics)); got != want {
			t.Errorf("%v: got %s, want %s", value, got, want)
		}
	}
	f(1, true, "1.0")
	f(1, false, "1")
	f(1e6, true, "1e+06")
	f(0.5, true, "0.5")
	f(math.Inf(1), true, "+Inf")
	f(nativeBound(1, 2), true, "1.189207115002721")
	f(1048576, true, strconv.FormatFloat(1048576, 'g', -1, 64))
}
