package runpod

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// List is what an account has of one kind.
type List[T any] struct {
	// Items are the entries that could be read, in RunPod's order.
	Items []T
	// Unreadable are the entries that exist and do not hold what they must. What
	// they stand for is there: only nothing new is known of it.
	Unreadable []Unreadable
}

// Unreadable is an entry of a list that could not be read.
type Unreadable struct {
	// ID is RunPod's id of what the entry stands for, never empty.
	ID string
	// Detail says where in the list it stands and what is wrong with it, without
	// repeating what it holds.
	Detail string
}

// lister decodes the lists of one kind.
type lister[W, T any] struct {
	name string             // the member that holds the list
	one  func(W) (T, error) // checks an entry
	id   func(T) string
	most int // entries
}

var (
	// errTooMany is a list that is longer than any account's.
	errTooMany = errors.New("the list is too long")
	errNotJSON = errors.New("not JSON")
	errTwice   = errors.New("the id is there twice")
)

// decode reads a list entry by entry, so that a million empty entries cost no more
// memory than their bytes. An entry that cannot be read costs the others nothing;
// one that does not say whose it is fails the list, because without it the list
// would say that a target is gone.
func (l lister[W, T]) decode(body []byte) (List[T], error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := open(dec, '{', "the answer"); err != nil {
		return List[T]{}, err
	}
	var list *List[T]
	for dec.More() {
		member, err := dec.Token()
		switch {
		case err != nil:
			return List[T]{}, errNotJSON
		case member != l.name:
			if err := dec.Decode(new(skipped)); err != nil {
				return List[T]{}, errNotJSON
			}
		case list != nil:
			return List[T]{}, fmt.Errorf("%s is there twice", l.name)
		default:
			list = new(List[T])
			if err := l.entries(list, dec, body); err != nil {
				return List[T]{}, err
			}
		}
	}
	if _, err := dec.Token(); err != nil || len(bytes.TrimSpace(body[dec.InputOffset():])) > 0 {
		return List[T]{}, errNotJSON // it is cut off, or goes on after its end
	}
	switch {
	case list == nil:
		return List[T]{}, fmt.Errorf("%s is missing", l.name)
	case len(list.Items) == 0 && len(list.Unreadable) > 0: // nothing at all can be used
		return List[T]{}, errors.New(list.Unreadable[0].Detail)
	}
	return *list, nil
}

// entries reads the entries of the list that comes next.
func (l lister[W, T]) entries(list *List[T], dec *json.Decoder, body []byte) error {
	if err := open(dec, '[', l.name); err != nil {
		return err
	}
	list.Items = []T{}
	seen := map[string]bool{}
	for i := 0; dec.More(); i++ {
		if i == l.most {
			return fmt.Errorf("%w: it has more than %d entries", errTooMany, l.most)
		}
		begin := dec.InputOffset()
		item, id, err := l.entry(dec)
		if err != nil && id == "" {
			id, err = whose(bytes.TrimLeft(body[begin:dec.InputOffset()], ", \t\r\n"), err)
		}
		switch {
		case id == "":
			return fmt.Errorf("%s[%d]: %w", l.name, i, err)
		case err == nil && seen[id]:
			err = errTwice
		}
		if err == nil {
			list.Items = append(list.Items, item)
		} else {
			list.Unreadable = append(list.Unreadable, Unreadable{ID: id, Detail: fmt.Sprintf("%s[%d]: %v", l.name, i, err)})
		}
		seen[id] = true
	}
	if _, err := dec.Token(); err != nil { // the end of the list
		return errNotJSON
	}
	return nil
}

// entry reads the entry that comes next. The id is empty with an error.
func (l lister[W, T]) entry(dec *json.Decoder) (item T, id string, err error) {
	var w W
	if err := dec.Decode(&w); err != nil {
		return item, "", jsonError(err)
	}
	if item, err = l.one(w); err != nil {
		return item, "", err
	}
	return item, l.id(item), nil
}

// whose returns whose an entry is that could not be read because of cause. It
// returns an empty id and why, when it does not say.
func whose(entry []byte, cause error) (string, error) {
	var who struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(entry, &who); err != nil {
		return "", jsonError(err)
	}
	if err := possibleID(who.ID); err != nil {
		return "", err
	}
	return who.ID, cause
}

// open reads the beginning of the object or list called name.
func open(dec *json.Decoder, want json.Delim, name string) error {
	token, err := dec.Token()
	switch token := token.(type) {
	case json.Delim:
		if token == want {
			return nil
		}
		return fmt.Errorf("%s is a JSON %s", name, map[json.Delim]string{'{': "object", '[': "array"}[token])
	case nil:
		if err == nil {
			return fmt.Errorf("%s is missing", name)
		}
		return errNotJSON
	default:
		return fmt.Errorf("%s is neither list nor object", name)
	}
}

// skipped is a value of no interest, which is not kept.
type skipped struct{}

// UnmarshalJSON takes any value.
func (*skipped) UnmarshalJSON([]byte) error { return nil }
