package exposition

import (
	"math"
	"math/bits"
	"strconv"

	"github.com/kaon-project/kaon/internal/program"
)

// scale is a program.Scale prepared for printing. Where the ratio has a finite
// decimal form, numbers are multiplied by num and shifted by digits decimals, which is exact;
// otherwise (digits < 0) they are converted by floating point.
type scale struct {
	num, den uint64
	digits   int
	factor   float64 // if not 0, instead of the ratio
	isFloat  bool    // raw numbers are the bits of a float64; factor is not 0, so that integers need not ask for this
}

const maxDigits = 19 // 10^19 is the largest power of ten in a uint64

func powerOfTen(n int) uint64 {
	p := uint64(1)
	for range n {
		p *= 10
	}
	return p
}

func newScale(s program.Scale) scale {
	if s.Float {
		return scale{digits: -1, factor: 1, isFloat: true}
	}
	if s.Factor != 0 && s.Factor != 1 {
		return scale{digits: -1, factor: s.Factor}
	}
	num, den := max(s.Num, 1), max(s.Den, 1)
	a, b := num, den
	for b != 0 {
		a, b = b, a%b
	}
	num, den = num/a, den/a

	rest, twos, fives := den, 0, 0
	for rest%2 == 0 {
		rest, twos = rest/2, twos+1
	}
	for rest%5 == 0 {
		rest, fives = rest/5, fives+1
	}
	digits := max(twos, fives)
	if rest != 1 || digits > maxDigits {
		return scale{num: num, den: den, digits: -1}
	}
	wide := num
	for range digits - twos {
		if wide > math.MaxUint64/2 {
			return scale{num: num, den: den, digits: -1}
		}
		wide *= 2
	}
	for range digits - fives {
		if wide > math.MaxUint64/5 {
			return scale{num: num, den: den, digits: -1}
		}
		wide *= 5
	}
	return scale{num: wide, den: powerOfTen(digits), digits: digits}
}

// plain says that raw numbers are printed as they are.
func (s *scale) plain() bool { return s.num == 1 && s.den == 1 }

// append appends the decimal form of raw, which holds an int64 if signed.
func (s *scale) append(dst []byte, raw uint64, signed bool) []byte {
	if signed && int64(raw) < 0 && !s.isFloat {
		dst = append(dst, '-')
		raw = -raw
	}
	if s.plain() {
		return strconv.AppendUint(dst, raw, 10)
	}
	if s.factor != 0 {
		return appendFloat(dst, s.inexact(raw))
	}
	hi, lo := bits.Mul64(raw, s.num)
	digits, unit := s.digits, s.den
	switch {
	case digits < 0 || hi >= unit && digits > 0:
		return appendFloat(dst, s.float(raw, false))
	case digits == 0 && hi == 0:
		return strconv.AppendUint(dst, lo, 10)
	case digits == 0:
		// A product of more than 64 bits: print it in two parts.
		unit = powerOfTen(maxDigits)
		if hi >= unit {
			return appendFloat(dst, s.float(raw, false))
		}
		whole, rest := bits.Div64(hi, lo, unit)
		if whole > 0 {
			dst = strconv.AppendUint(dst, whole, 10)
			return appendPadded(dst, rest, maxDigits)
		}
		return strconv.AppendUint(dst, rest, 10)
	}
	whole, rest := bits.Div64(hi, lo, unit)
	dst = strconv.AppendUint(dst, whole, 10)
	if rest == 0 {
		return dst
	}
	for rest%10 == 0 {
		rest, digits = rest/10, digits-1
	}
	return appendPadded(append(dst, '.'), rest, digits)
}

// inexact returns the number where there is no ratio.
func (s *scale) inexact(raw uint64) float64 {
	if s.isFloat {
		return math.Float64frombits(raw)
	}
	return float64(raw) * s.factor
}

// float returns the scaled number as the nearest float64, or next to it where
// the product exceeds 53 bits.
func (s *scale) float(raw uint64, signed bool) float64 {
	if signed && int64(raw) < 0 && !s.isFloat {
		return -s.float(-raw, false)
	}
	if s.factor != 0 {
		return s.inexact(raw)
	}
	hi, lo := bits.Mul64(raw, s.num)
	product := float64(lo)
	if hi != 0 {
		product += float64(hi) * (1 << 64)
	}
	return product / float64(s.den)
}

// appendPadded appends n in exactly the given number of digits.
func appendPadded(dst []byte, n uint64, digits int) []byte {
	end := len(dst) + digits
	for range digits {
		dst = append(dst, '0')
	}
	for i := end - 1; n > 0 && i >= end-digits; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

// appendMillis appends a time in milliseconds as seconds with three decimals, never with an exponent.
func appendMillis(dst []byte, ms int64) []byte {
	if ms < 0 {
		dst, ms = append(dst, '-'), -ms
	}
	dst = strconv.AppendUint(dst, uint64(ms)/1000, 10)
	return appendPadded(append(dst, '.'), uint64(ms)%1000, 3)
}

// appendFloat appends a number as the client libraries print it.
func appendFloat(dst []byte, f float64) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(dst, "+Inf"...)
	case math.IsInf(f, -1):
		return append(dst, "-Inf"...)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

// appendBound appends a le or quantile value: OpenMetrics wants a point or an exponent in it.
func appendBound(dst []byte, f float64, openMetrics bool) []byte {
	start := len(dst)
	dst = appendFloat(dst, f)
	if !openMetrics || math.IsInf(f, 0) {
		return dst
	}
	for _, c := range dst[start:] {
		if c == '.' || c == 'e' {
			return dst
		}
	}
	return append(dst, ".0"...)
}
