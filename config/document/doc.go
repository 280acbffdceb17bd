// Package document holds a machine configuration as the documents it is made
// of, and writes it again without losing what it does not understand:
//
//	# made by hand                 -> carried along, byte for byte
//	machine:
//	  type: worker                 -> document v1alpha1
//	---
//	apiVersion: v1alpha1
//	kind: VolumeConfig
//	name: EPHEMERAL                -> document v1alpha1/VolumeConfig/EPHEMERAL
//	---
//	apiVersion: example.com/v1
//	kind: Surprise                 -> document example.com/v1/Surprise
//
// A [Stream] does not change: [Stream.With] makes another one. A document that
// nobody changed is written as the very bytes it was read from, in its place. A
// changed one keeps the lines of all that did not change, byte for byte: their
// indentation, their styles, their blank lines, and the comments, each in its
// column. What is added is written behind what is there, in front of comments
// that are further to the left; what is deleted goes with the comments right
// above it in its column, between its lines, and below it to the right of its
// column. An alias becomes what it stands for, and a value in flow style that
// changes is written on one line. A document that is as a whole in flow style, or
// has names that are lists or mappings, is written anew when it changes; then the
// spacing is lost, and can be comments.
//
// [Read] refuses, in a time and with memory that do not grow with what the input
// would expand to: sources of more than [MaxSource] bytes, 100,000 entries or
// 250,000 marks, nesting deeper than 100 levels, a field that is there twice, and
// documents that are not mappings or are there twice. Aliases cost nothing until
// a document is changed, and then at most [MaxNodes] values.
//
// The package also has what the readers of such documents share: the form of a
// mistake ([Error]: file, line, field, problem, fix), and the collector of them
// ([Report]). No message shows a value of a document; names of fields it does, but
// for those below a secret. [SecretName] is what decides, for package redact too.
//
// What this does not protect: secrets in the documents stay in the Go heap, in
// the clear, until the garbage collector reuses the memory. Package redact
// removes them from what is shown.
package document
