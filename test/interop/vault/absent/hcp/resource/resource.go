// Package resource stands for the names of a cloud service that the tests do not use.
package resource

import "errors"

// Resource is not used.
type Resource struct{}

// FromString fails.
func FromString(string) (Resource, error) { return Resource{}, errors.New("hcp-sdk-go is absent") }
