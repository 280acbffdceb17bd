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
// changed one is written anew: the order of its fields, its comments and the
// style of its texts and lists stay, and so do its blank lines and its
// indentation as far as it is even; other spacing does not, an alias becomes what
// it stood for, and a comment can be lost where nothing follows it, such as in
// front of "...".
//
// [Read] refuses, in a time and with memory that do not grow with what the
// input would expand to: sources of more than [MaxSource] bytes or [maxMarks]
// entries, nesting deeper than 100 levels, a field that is there twice, and
// documents that are not mappings or are there twice. Aliases cost nothing
// until a document is changed, and then at most [MaxNodes] values.
//
// The package also has what the readers of such documents share: the form of a
// mistake ([Error]: file, line, field, problem, fix), and the collector of them
// ([Report]). No message shows a value of a document; names of fields it does.
//
// What this does not protect: secrets in the documents stay in the Go heap, in
// the clear, until the garbage collector reuses the memory. Package redact
// removes them from what is shown.
package document
