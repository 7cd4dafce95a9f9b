package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// Limits of a file.
const (
	// MaxSize is the size in bytes up to which a file is read.
	MaxSize = 1 << 20
	// MaxDocuments is the number of documents that a file may hold.
	MaxDocuments = 100

	maxNodes    = 100_000 // with aliases expanded
	maxNesting  = 64
	maxKey      = 320 // bytes; paths are made of keys, and each value has one
	maxProblems = 100
	maxMessage  = 500 // bytes
)

// ErrTooLarge is returned for files above MaxSize.
var ErrTooLarge = errors.New("file is too large")

// ReadFile reads the one document of a YAML file into out, as Unmarshal does.
func ReadFile(path string, out any) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	return Unmarshal(data, path, out)
}

func readFile(path string) ([]byte, error) {
	// A named pipe would be waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &program.Problem{Where: path, What: "not a regular file"}
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", path, ErrTooLarge, MaxSize)
	}
	return data, nil
}

// Unmarshal decodes one YAML (or JSON) document into out, a pointer to a struct with json tags. It is strict: an
// unknown field, a duplicate key, a wrong type, a missing required field (one without omitempty)
// and a value outside of the tags enum, minimum, maximum, maxItems is a problem. The error joins every *program.Problem,
// located as "path:line: field". An empty document leaves out as it is. path is for messages.
//
// Besides the usual kinds a field may be a time.Duration ("10s"), an encoding.TextUnmarshaler (which gets the
// text of any scalar) or a json.Unmarshaler. A struct with UnmarshalJSON uses that for scalars only: as a
// mapping it is always decoded by its fields.
func Unmarshal(data []byte, path string, out any) error {
	if len(data) > MaxSize {
		return fmt.Errorf("%s: %w: more than %d bytes", path, ErrTooLarge, MaxSize)
	}
	v := reflect.ValueOf(out)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return fmt.Errorf("%s: decode into %T: want a pointer", path, out)
	}
	documents, err := parseDocuments(data, path)
	if err != nil {
		return err
	}
	switch len(documents) {
	case 0:
		return nil
	case 1:
	default:
		return &program.Problem{Where: at(path, documents[1].Line, ""), What: "a second document begins here", Fix: "remove the line ---"}
	}
	d := newDecoder(path)
	d.decode(documents[0], v.Elem(), "", 0)
	return errors.Join(d.problems...)
}

// UnmarshalShort is for UnmarshalJSON of a struct that can also be written as a
// bare string: data that is a string goes to short, else to long, strictly.
func UnmarshalShort(data []byte, short *string, long any) error {
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '"' {
		return json.Unmarshal(trimmed, short)
	}
	return Unmarshal(data, "", long)
}

// parseDocuments splits data into the root nodes of its documents; empty ones are left out.
func parseDocuments(data []byte, path string) (documents []*yaml.Node, err error) {
	// The parser is a library's: what a hostile file makes of it must not be ours to die of.
	defer func() {
		if r := recover(); r != nil {
			documents, err = nil, &program.Problem{Where: path, What: fmt.Sprintf("not readable as YAML (%v)", r)}
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, syntaxProblem(data, path, err)
		}
		root := &node
		if node.Kind == yaml.DocumentNode {
			if len(node.Content) == 0 {
				continue
			}
			root = node.Content[0]
		}
		if root.Kind == 0 || root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
			continue
		}
		if len(documents) == MaxDocuments {
			return nil, &program.Problem{Where: at(path, root.Line, ""), What: fmt.Sprintf("more than %d documents", MaxDocuments), Fix: "split the file"}
		}
		documents = append(documents, root)
	}
}

var anchorName = regexp.MustCompile(`anchor '(.*?)'`)

var syntaxLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?((?s).*)$`)

func syntaxProblem(data []byte, path string, err error) error {
	match := syntaxLine.FindStringSubmatch(err.Error())
	line, _ := strconv.Atoi(match[1])
	if line == 0 { // the parser tells neither the first line nor that of an anchor
		line = 1
		if name := anchorName.FindStringSubmatch(match[2]); name != nil {
			before, _, _ := bytes.Cut(data, []byte("*"+name[1]))
			line += bytes.Count(before, []byte("\n"))
		}
	}
	p := &program.Problem{Where: at(path, line, ""), What: "not valid YAML: " + match[2]}
	if lines := bytes.Split(data, []byte("\n")); line > 0 && line <= len(lines) {
		// The parser is sometimes one line off.
		for _, l := range lines[max(line-2, 0):min(line+1, len(lines))] {
			if bytes.Contains(l[:len(l)-len(bytes.TrimLeft(l, " \t"))], []byte("\t")) {
				p.Fix = "indent with spaces, not with tabs"
			}
		}
	}
	return p
}

// at formats a place: "path:line: field", or only the field where there is no file.
func at(path string, line int, field string) string {
	if path == "" {
		return field
	}
	where := path
	if line > 0 {
		where += ":" + strconv.Itoa(line)
	}
	if field != "" {
		where += ": " + field
	}
	return where
}
