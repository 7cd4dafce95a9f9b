package page

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/kaon-project/kaon/internal/lab"
)

// file is the kick program on disk. Any editor may change it at any time.
type file struct {
	// path is absolute, so that a problem says where the file is.
	path string
}

// openFile returns the file of a path, and writes the original program there if there is none.
func openFile(path string) (*file, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("kick program %s: %w", path, err)
	}
	f := &file{path: absolute}
	if _, err := os.Lstat(absolute); errors.Is(err, fs.ErrNotExist) {
		if err := f.write([]byte(lab.DefaultProgram)); err != nil {
			return nil, fmt.Errorf("%w: name another file with --program", err)
		}
	}
	return f, nil
}

// name is what problems call the program.
func (f *file) name() string { return filepath.Base(f.path) }

// read returns what is on disk; of a file that is too long one byte more than a program may have.
func (f *file) read() ([]byte, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		// A pipe would keep the reader waiting.
		return nil, fmt.Errorf("%s is no regular file", f.path)
	}
	opened, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return io.ReadAll(io.LimitReader(opened, lab.MaxSource+1))
}

// stamp tells versions of the file apart without reading it; the zero stamp stands for no file.
type stamp struct{ os.FileInfo }

func (f *file) stamp() stamp {
	info, err := os.Stat(f.path)
	if err != nil {
		return stamp{}
	}
	return stamp{info}
}

func (s stamp) same(other stamp) bool {
	if s.FileInfo == nil || other.FileInfo == nil {
		return s.FileInfo == other.FileInfo
	}
	return os.SameFile(s.FileInfo, other.FileInfo) && s.ModTime().Equal(other.ModTime()) && s.Size() == other.Size()
}

// write replaces the file in one step, so that nobody reads half of it. A link stays a link.
func (f *file) write(source []byte) error {
	path := f.path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	mode := fs.FileMode(0o644)
	owner, err := os.Stat(path)
	if err == nil {
		mode = owner.Mode().Perm()
	} else {
		owner, _ = os.Stat(filepath.Dir(path))
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write the kick program: %w", err)
	}
	_, err = temporary.Write(source)
	// Root's lab leaves the file to whoever edits it; where that is not allowed it is the lab's. Before the mode, of which it takes bits away.
	if owner != nil {
		if status, ok := owner.Sys().(*syscall.Stat_t); ok {
			_ = temporary.Chown(int(status.Uid), int(status.Gid))
		}
	}
	err = errors.Join(err, temporary.Chmod(mode), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the kick program: %w", errors.Join(err, os.Remove(temporary.Name())))
	}
	return nil
}

// revision names a text, so that somebody who saves can say what was changed.
func revision(source []byte) string {
	sum := sha256.Sum256(source)
	return hex.EncodeToString(sum[:8])
}
