// Package smoke has tests of the kernel matrix itself: that the guests have
// what tests of other packages take for granted.
package smoke
