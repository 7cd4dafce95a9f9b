package series

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// fileReader reads the lines of host files: strings that are keys, in the fields of Reader.Key, and columns that
// are numbers, of 8 bytes each. Lines with the same key are added up; lines that lack a column, or whose
// number is none, are passed over.
type fileReader struct{ reader *program.Reader }

// maxLine bounds a line of a file in bytes.
const maxLine = 64 << 10

func newFileReader(_ *program.Spec, r *program.Reader, _ Source, _ *buffer, _ *Options) (reader, readerInfo, error) {
	f := r.File
	bad := func(what string) (reader, readerInfo, error) {
		return nil, readerInfo{}, fmt.Errorf("%w: %s: %s", ErrUnreadable, r.Name, what)
	}
	if f == nil || f.Path == "" {
		return bad("no file is named")
	}
	if len(f.Keys) != len(r.Key) || int64(r.ValueSize) != 8*int64(len(f.Values)) {
		return bad("each string of the key needs a label, each value 8 bytes")
	}
	if err := checkFileKeys(r, f.Path, f.Keys); err != nil {
		return bad(err.Error())
	}
	for _, column := range f.Values {
		if column < 0 {
			return bad("columns are counted from 0")
		}
	}
	return &fileReader{r}, readerInfo{additive: true}, nil
}

func checkFileKeys(r *program.Reader, path string, keys []program.FileKey) error {
	if _, err := filepath.Match(path, ""); err != nil {
		return fmt.Errorf("%q is no pattern of paths", path)
	}
	for _, l := range r.Key {
		if uint64(l.Field.Offset)+uint64(l.Field.Size) > uint64(r.KeySize) {
			return errors.New("label " + l.Name + " does not fit the key")
		}
	}
	for _, k := range keys {
		if k.Column < 0 || k.Component < 0 {
			return errors.New("columns and components are not negative")
		}
	}
	return nil
}

func (r *fileReader) open() (parts, error) {
	return parts{1, int(r.reader.ValueSize), int(r.reader.ValueSize)}, nil
}

func (r *fileReader) read(ctx context.Context, yield func(keys, values []byte, n int)) error {
	key, value := make([]byte, r.reader.KeySize), make([]byte, r.reader.ValueSize)
	return eachFile(ctx, r.reader.File.Path, func(path string) error {
		clear(key)
		if !fileKey(key, r.reader.Key, r.reader.File.Keys, path) {
			return nil
		}
		return r.lines(ctx, path, key, value, yield)
	})
}

func (r *fileReader) lines(ctx context.Context, path string, key, value []byte, yield func(keys, values []byte, n int)) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read file: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if bytes.HasPrefix(lines.Bytes(), []byte(r.reader.File.Prefix)) && r.parse(lines.Bytes(), key, value) {
			yield(key, value, 1)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// eachFile calls read for each path of a pattern. A file of a pattern that vanished meanwhile, or has no
// number now, is none.
func eachFile(ctx context.Context, pattern string, read func(path string) error) error {
	if !strings.ContainsAny(pattern, `*?[\`) {
		return read(pattern)
	}
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return fmt.Errorf("read %s: %w", pattern, err)
	}
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if err := read(path); err != nil && !goneFile(err) {
			return err
		}
	}
	return nil
}

// goneFile says whether an error means that the thing is not there any more.
func goneFile(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoDevice) || errors.Is(err, errNoData)
}

// fileKey puts the strings that don't come from columns into a key. It returns false if a file of a string is gone.
func fileKey(key []byte, labels []program.Label, keys []program.FileKey, path string) bool {
	for i, k := range keys {
		text := ""
		switch {
		case k.File != "":
			var ok bool
			if text, ok = firstLine(filepath.Join(filepath.Dir(path), k.File)); !ok {
				return false
			}
		case k.Component > 0:
			if components := strings.Split(path, "/"); k.Component < len(components) {
				text = components[k.Component]
			}
		default:
			continue
		}
		f := labels[i].Field
		copy(key[f.Offset:f.Offset+f.Size], text)
	}
	return true
}

// firstLine returns the beginning of a file's first line.
func firstLine(path string) (string, bool) {
	fd, err := openFile(path)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	var b [program.FileColumnSize]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return "", false
	}
	line, _ := nextLine(b[:n])
	return string(line), true
}

func (r *fileReader) parse(line, key, value []byte) bool {
	columns := bytes.Fields(line)
	for i, k := range r.reader.File.Keys {
		if k.File != "" || k.Component > 0 {
			continue
		}
		if k.Column >= len(columns) {
			return false
		}
		f := r.reader.Key[i].Field
		place := key[f.Offset : f.Offset+f.Size]
		clear(place[copy(place, columns[k.Column]):])
	}
	for i, column := range r.reader.File.Values {
		if column >= len(columns) {
			return false
		}
		n, ok := wholeNumber(columns[column])
		if !ok {
			return false
		}
		binary.LittleEndian.PutUint64(value[8*i:], n)
	}
	return true
}

// wholeNumber parses a decimal number; a negative one is returned as the bits of an int64.
func wholeNumber(text []byte) (uint64, bool) {
	if len(text) == 0 || len(text) > 20 {
		return 0, false
	}
	if text[0] == '-' {
		n, err := strconv.ParseInt(string(text), 10, 64)
		return uint64(n), err == nil
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	return n, err == nil
}
