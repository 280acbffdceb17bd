package vault_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/kms/kek/kektest"
)

// reply is what matters to a client of what it is answered.
type reply struct {
	Status int
	Data   []string // the members of the data that we read
	Errors []string
}

func ask(t *testing.T, c *http.Client, url, token, method, path, body string) (r reply, ciphertext string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Data   map[string]any
		Errors []string
	}
	if len(bytes.TrimSpace(text)) > 0 {
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
	}
	r = reply{Status: resp.StatusCode, Errors: got.Errors}
	for _, name := range slices.Sorted(maps.Keys(got.Data)) {
		if name == "plaintext" || name == "ciphertext" || name == "latest_version" {
			r.Data = append(r.Data, name)
		}
	}
	ciphertext, _ = got.Data["ciphertext"].(string)
	return r, ciphertext
}

// TestFakeAnswersAsVault holds the fake that other tests use to the real one.
func TestFakeAnswersAsVault(t *testing.T) {
	s := start(t)
	f := &kektest.Transit{}
	fake := f.Start(t)
	if kektest.Mount != mount || kektest.Key != plain {
		t.Fatal("the fake's key is elsewhere")
	}
	var wrapped [2]string
	for _, tt := range []struct{ name, method, path, body string }{
		{"encrypt", "POST", "encrypt/nodes", `{"plaintext":"AAAA","associated_data":"QQ=="}`},
		{"decrypt", "POST", "decrypt/nodes", `{"ciphertext":"%","associated_data":"QQ=="}`},
		{"another node", "POST", "decrypt/nodes", `{"ciphertext":"%","associated_data":"Qg=="}`},
		{"too new", "POST", "decrypt/nodes", `{"ciphertext":"vault:v9:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`},
		{"no prefix", "POST", "decrypt/nodes", `{"ciphertext":"AAAA"}`},
		{"not base64", "POST", "decrypt/nodes", `{"ciphertext":"vault:v1:%%"}`},
		{"no such key", "POST", "decrypt/other", `{"ciphertext":"%","associated_data":"QQ=="}`},
		{"rewrap, no such key", "POST", "rewrap/other", `{"ciphertext":"%"}`},
		{"look", "GET", "keys/nodes", ""},
		{"look, no such key", "GET", "keys/other", ""},
		{"rotate", "POST", "keys/nodes/rotate", "{}"},
	} {
		body := func(i int) string { return strings.Replace(tt.body, `"%"`, `"`+wrapped[i]+`"`, 1) }
		real, first := ask(t, s.http.Client(), s.http.URL, s.root, tt.method, mount+"/"+tt.path, body(0))
		fakes, second := ask(t, fake.Client(), fake.URL, kektest.Token, tt.method, mount+"/"+tt.path, body(1))
		if d := cmp.Diff(real, fakes); d != "" {
			t.Errorf("%s: the fake (+) is not Vault (-):\n%s", tt.name, d)
		}
		if first != "" && second != "" {
			wrapped = [2]string{first, second}
		}
	}
	real, _ := ask(t, s.http.Client(), s.http.URL, "hvs.wrong", "POST", mount+"/decrypt/nodes", "{}")
	fakes, _ := ask(t, fake.Client(), fake.URL, "hvs.wrong", "POST", mount+"/decrypt/nodes", "{}")
	if d := cmp.Diff(real, fakes); d != "" {
		t.Errorf("wrong token: the fake (+) is not Vault (-):\n%s", d)
	}
}
