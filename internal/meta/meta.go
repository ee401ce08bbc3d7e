// Package meta is the engine's database: what survives a restart of the host.
//
// One bbolt file; each table is a bucket, each row a JSON value under a string
// key:
//
//	skiff/
//	├── containers/<id>   containers made without --rm
//	├── networks/<id>     user-defined networks
//	├── volumes/<name>    named and anonymous volumes
//	└── …                 whatever a service opens with [NewTable]
//
// A write returns when it is on disk. Run-time state (pids, endpoints, --rm
// containers) does not belong here: it lives under the run directory.
package meta

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

var root = []byte("skiff")

// DB is an open database; safe for concurrent use.
type DB struct{ bolt *bolt.DB }

// Open opens or makes the database file. Another process that has it open makes
// Open fail after a second: two daemons on one data root would ruin it.
func Open(path string) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	if errors.Is(err, bolt.ErrTimeout) {
		return nil, errs.Newf(errs.Conflict, "%s is in use by another skiffd", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &DB{db}, nil
}

// Close waits for running transactions and closes the file.
func (db *DB) Close() error { return db.bolt.Close() }

// Table is a set of rows of one type.
type Table[T any] struct {
	db   *bolt.DB
	name []byte
}

// NewTable opens the table, making it if there is none.
func NewTable[T any](db *DB, name string) (*Table[T], error) {
	t := &Table[T]{db.bolt, []byte(name)}
	err := db.bolt.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(root); b == nil || b.Bucket(t.name) == nil {
			return bolt.ErrBucketNotFound
		}
		return nil
	})
	if err == nil {
		return t, nil // an open of an existing database costs no sync
	}
	err = db.bolt.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(root)
		if err != nil {
			return err
		}
		_, err = b.CreateBucketIfNotExists(t.name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make table %s: %w", name, err)
	}
	return t, nil
}

func (t *Table[T]) bucket(tx *bolt.Tx) *bolt.Bucket { return tx.Bucket(root).Bucket(t.name) }

// Put writes a row.
func (t *Table[T]) Put(key string, v T) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("put %s/%s: %w", t.name, key, err)
	}
	err = t.update(func(b *bolt.Bucket) error { return b.Put([]byte(key), data) })
	if err != nil {
		return fmt.Errorf("put %s/%s: %w", t.name, key, err)
	}
	return nil
}

// Delete removes a row; none is no error.
func (t *Table[T]) Delete(key string) error {
	err := t.update(func(b *bolt.Bucket) error { return b.Delete([]byte(key)) })
	if err != nil {
		return fmt.Errorf("delete %s/%s: %w", t.name, key, err)
	}
	return nil
}

func (t *Table[T]) update(f func(*bolt.Bucket) error) error {
	return t.db.Update(func(tx *bolt.Tx) error { return f(t.bucket(tx)) })
}

// Get reads a row; a missing one is an error of kind NotFound.
func (t *Table[T]) Get(key string) (T, error) {
	var v T
	err := t.db.View(func(tx *bolt.Tx) error {
		data := t.bucket(tx).Get([]byte(key))
		if data == nil {
			return errs.Newf(errs.NotFound, "no %s in %s", key, t.name)
		}
		return json.Unmarshal(data, &v)
	})
	return v, err
}

// All reads every row, in the order of keys. A row that cannot be decoded is
// left out and told of in the error, which does not void the others.
func (t *Table[T]) All() ([]T, error) {
	var out []T
	var bad []error
	err := t.db.View(func(tx *bolt.Tx) error {
		return t.bucket(tx).ForEach(func(k, data []byte) error {
			var v T
			if err := json.Unmarshal(data, &v); err != nil {
				bad = append(bad, fmt.Errorf("row %s/%s: %w", t.name, k, err))
				return nil
			}
			out = append(out, v)
			return nil
		})
	})
	return out, errors.Join(append(bad, err)...)
}
