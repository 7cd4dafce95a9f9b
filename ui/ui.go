// Package ui is the built page of the lab. Its sources are in src; make ui builds dist.
package ui

import (
	"embed"
	"io/fs"
)

//go:embed dist/index.html dist/lab.js dist/lab-style.css dist/LICENSES.txt
var files embed.FS

// Assets returns the built page.
func Assets() (fs.FS, error) { return fs.Sub(files, "dist") }
