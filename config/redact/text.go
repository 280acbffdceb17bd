package redact

import (
	"strings"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/secret"
)

// Text returns a text without what looks like a secret in it: private keys in PEM,
// passwords and tokens in URLs, and the values of settings that are named like one.
func Text(s string) string {
	switch {
	case hasPrivateKey(s):
		return secret.Placeholder
	case !strings.ContainsAny(s, "=@"):
		return s
	}
	return settings(urls(s))
}

// Shown reports whether a value is one that was shown in the place of a secret, or
// has one in it: what Text makes. Any other text with the placeholder is not.
func Shown(s string) bool {
	if s == secret.Placeholder {
		return true
	}
	for {
		before, after, found := strings.Cut(s, secret.Placeholder)
		if !found {
			return false
		}
		name, setting := strings.CutSuffix(before, "=")
		if setting && document.SecretName(name[nameStart(name):]) ||
			strings.HasPrefix(after, "@") && strings.HasSuffix(before, ":") || strings.HasPrefix(after, "@") && isHTTP(before) {
			return true
		}
		s = after
	}
}

// hasPrivateKey reports whether there is a private key in PEM, or in base64 of that:
// the words of its header, as they look at each of the three places that they can
// have in a group of bytes.
func hasPrivateKey(s string) bool {
	if strings.Contains(s, "PRIVATE KEY") && strings.Contains(s, "-----BEGIN") {
		return true
	}
	s = strings.Join(strings.Fields(s), "")
	return strings.Contains(s, "UFJJVkFURSBL") || strings.Contains(s, "SVZBVEUgS0VZ") || strings.Contains(s, "UklWQVRFIEtF")
}

// urls hides the passwords of URLs. A password that should have been escaped can have
// any character but a blank, so that what is hidden ends at the last @.
func urls(s string) string {
	if !strings.Contains(s, "://") || !strings.Contains(s, "@") {
		return s
	}
	var out strings.Builder
	for s != "" {
		word := s[:wordEnd(s)]
		s = s[len(word):]
		if start, end := password(word); start < end {
			out.WriteString(word[:start] + secret.Placeholder)
			word = word[end:]
		}
		out.WriteString(word)
		blank := len(s) - len(strings.TrimLeft(s, blanks))
		out.WriteString(s[:blank])
		s = s[blank:]
	}
	return out.String()
}

const blanks = " \t\r\n\v\f"

// wordEnd returns where the word ends that the text starts with.
func wordEnd(s string) int {
	if i := strings.IndexAny(s, blanks); i >= 0 {
		return i
	}
	return len(s)
}

// password returns where in a word without blanks the password of a URL is, 0, 0 for
// none.
func password(word string) (start, end int) {
	end = strings.LastIndexByte(word, '@')
	for start < end {
		scheme := strings.Index(word[start:end], "://")
		if scheme < 0 {
			break
		}
		start += scheme + len("://")
		authority := word[start:]
		if i := strings.IndexAny(authority, "/?#"); i >= 0 {
			authority = authority[:i]
		}
		colon := strings.IndexByte(word[start:end], ':')
		switch {
		case colon < 0 && strings.Contains(authority, "@") && isHTTP(word[:start]):
			return start, end // a token: users without a password are of other schemes
		case colon < 0:
			return 0, 0
		case !strings.Contains(authority, "@") && isHost(authority):
			start += len(authority) // the @ is in the path, or in another URL
		default:
			return start + colon + 1, end
		}
	}
	return 0, 0
}

// isHTTP reports whether a text ends with the scheme of HTTP.
func isHTTP(s string) bool {
	s = strings.ToLower(s)
	return strings.HasSuffix(s, "http://") || strings.HasSuffix(s, "https://")
}

// isHost reports whether a text has the form of a host with or without a port. A
// password without an @ behind it, in front of a slash, is not one of digits alone.
func isHost(s string) bool {
	if strings.HasPrefix(s, "[") {
		_, s, _ = strings.Cut(s, "]")
	}
	_, port, _ := strings.Cut(s, ":")
	return strings.Trim(port, "0123456789") == ""
}

// settings hides the values of NAME=value. In a text that is nothing else, such as an
// entry of an environment, the value goes to the end.
func settings(s string) string {
	var out strings.Builder
	first := true
	for rest := s; ; first = false {
		i := strings.IndexByte(rest, '=')
		if i < 0 {
			out.WriteString(rest)
			return out.String()
		}
		start := nameStart(rest[:i])
		before, name := rest[:start], rest[start:i]
		out.WriteString(rest[:i+1])
		rest = rest[i+1:]
		if rest == "" || !document.SecretName(name) {
			continue
		}
		size := len(rest)
		if !first || strings.Trim(before, blanks) != "" {
			size = valueEnd(rest, before)
		}
		if size > 0 {
			out.WriteString(secret.Placeholder)
		}
		rest = rest[size:]
	}
}

// nameStart returns where the name starts with which a text ends.
func nameStart(s string) int {
	return 1 + strings.LastIndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_.-", r)
	})
}

// valueEnd returns where the value ends that a text starts with: at the blank behind
// the quote that closes it, at the next parameter of a URL, at a blank.
func valueEnd(s, before string) int {
	if q := s[0]; q == '"' || q == '\'' {
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
			case q:
				return i + 1 + wordEnd(s[i+1:])
			}
		}
		return len(s)
	}
	end := wordEnd(s)
	if strings.HasSuffix(before, "?") || strings.HasSuffix(before, "&") {
		if i := strings.IndexAny(s[:end], "&#"); i >= 0 {
			return i
		}
	}
	return end
}
