// Package option stands for the options of clients that the tests do not use.
package option

// WithUserAgent is not used.
func WithUserAgent(string) any { return nil }
