// Package mysql stands for a database driver that the tests do not use.
package mysql

import (
	"errors"

	"cloud.google.com/go/cloudsqlconn"
)

// RegisterDriver fails.
func RegisterDriver(string, ...cloudsqlconn.Option) (func() error, error) {
	return nil, errors.New("cloudsqlconn is absent")
}
