// Package vault stands for settings of a sink that the tests do not use.
package vault

// Not used.
var Extractor, Bucketer any
