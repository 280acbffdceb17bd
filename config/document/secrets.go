package document

import (
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"
)

// SecretName reports whether what a field, a setting or a header of this name has
// is a secret, in whatever way the name is written: apiKey, API_KEY, x-api-key. It
// is the only place that decides so by name.
//
// Keys are secrets but for those that are public, or none at all: publicKey,
// signingKey (of a boot image's policy), topologyKey, and the port keys of a bond.
func SecretName(name string) bool {
	flat := flatten(name)
	in := func(part string) bool { return strings.Contains(flat, part) }
	ends := func(part string) bool { return strings.HasSuffix(flat, part) }
	switch {
	case slices.ContainsFunc(secretParts(), in):
		return true
	case ends("key"):
		return name != "signingKey" && !slices.ContainsFunc([]string{"publickey", "pubkey", "topologykey", "portkey"}, ends)
	case slices.ContainsFunc([]string{"credential", "credentials", "psk", "cookie"}, ends):
		return true
	case ends("pass"):
		return !ends("bypass") && !ends("compass")
	case ends("pwd"): // PWD and OLDPWD are directories
		return len(wordsOf(name)) > 1
	case in("pass"), in("psk"), in("pin"):
		words := wordsOf(name)
		return slices.Contains(words, "pass") || slices.Contains(words, "psk") || words[len(words)-1] == "pin"
	}
	return false
}

// secretParts are in the names of secrets of all kinds: aescbcEncryptionSecret,
// identityToken, privateKeys.
func secretParts() []string {
	return []string{
		"passphrase", "password", "passwd", "passcode", "secret", "token",
		"privatekey", "presharedkey", "apikey", "accesskey", "authkey", "encryptionkey", "basicauth",
	}
}

// flatten returns the letters and digits of a name in lower case.
func flatten(name string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}

// wordsOf returns the words of a name in lower case: those of dbPass and DB_PASS are
// db and pass.
func wordsOf(name string) []string {
	var out strings.Builder
	lower := false // the letter before
	for _, r := range name {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			out.WriteByte(' ')
		case lower && unicode.IsUpper(r):
			out.WriteByte(' ')
		}
		lower = unicode.IsLower(r)
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			out.WriteRune(unicode.ToLower(r))
		}
	}
	return strings.Fields(out.String())
}

// secretBlock reports whether a field of this name has secrets among its fields, and
// is one itself when it has none: auth and ca of a registry, a header.
func secretBlock(name string) bool {
	return slices.Contains([]string{"auth", "authorization", "proxyauthorization", "ca"}, flatten(name))
}

// Secret reports whether the value of a field is a secret, all of it, the names of
// fields in it too: a passphrase without quotes can become a mapping. A truth value
// is none, but for one that is a password, and neither is nothing.
func Secret(name string, value *yaml.Node) bool {
	n := Resolved(value)
	flat := flatten(name)
	switch {
	case SecretName(name):
		return strings.Contains(flat, "pass") || !isTruth(n)
	case secretBlock(name):
		return n.Kind != yaml.MappingNode
	case flat == "static":
		return n.Kind != yaml.MappingNode || len(n.Content) > 2 || len(n.Content) == 2 && flatten(NameOf(n.Content[0])) != "passphrase"
	}
	return false
}

func isTruth(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" && (strings.EqualFold(n.Value, "true") || strings.EqualFold(n.Value, "false"))
}

// Visible returns as much of a path as may be shown: what is below a secret may be
// part of it. Below value it is not, since what that is a value of stands beside it.
func Visible(path []string) []string {
	for i, name := range path {
		next := ""
		if i+1 < len(path) {
			next = path[i+1]
		}
		switch {
		case name == "value", SecretName(name), secretBlock(name) && isEntry(next), flatten(name) == "static" && flatten(next) != "passphrase":
			return path[:i+1]
		}
	}
	return path
}

// ShownPath returns a path as a message shows it, without the names below a secret.
func ShownPath(path []string) string {
	var steps []string
	for _, p := range Visible(path) {
		if !isEntry(p) {
			p = ShownStep(p)
		}
		steps = append(steps, p)
	}
	return Path(steps...)
}

// ShownStep returns the name of a field as paths show it: sysctls["vm.max"].
func ShownStep(name string) string {
	if name != "" && !strings.ContainsAny(name, ".[]\"") {
		return Shown(name)
	}
	start, more := clip(name)
	return "[" + strconv.Quote(start) + more + "]"
}

// isEntry reports whether a step of a path is the number of a list entry.
func isEntry(step string) bool {
	digits, ok := strings.CutPrefix(step, "[")
	digits, ok2 := strings.CutSuffix(digits, "]")
	return ok && ok2 && digits != "" && strings.Trim(digits, "0123456789") == ""
}
