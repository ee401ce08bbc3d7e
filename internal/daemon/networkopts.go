package daemon

import (
	"encoding/json"
	"fmt"
	"strings"
)

// networkOptsFlag collects --default-network-opt and the key
// "default-network-opts" of daemon.json: options of new networks, by driver.
type networkOptsFlag map[string]map[string]string

func (n networkOptsFlag) String() string { return "" }
func (n networkOptsFlag) Type() string   { return "mapmap" }

// Set takes driver=key=value.
func (n networkOptsFlag) Set(s string) error {
	driver, option, _ := strings.Cut(s, "=")
	key, value, ok := strings.Cut(option, "=")
	if !ok || driver == "" || key == "" {
		return fmt.Errorf("want driver=key=value, not %q", s)
	}
	n.add(driver, key, value)
	return nil
}

func (n networkOptsFlag) add(driver, key, value string) {
	if n[driver] == nil {
		n[driver] = map[string]string{}
	}
	n[driver][key] = value
}

func (n networkOptsFlag) setJSON(raw json.RawMessage) error {
	var all map[string]map[string]string
	if err := json.Unmarshal(raw, &all); err != nil {
		return fmt.Errorf("default-network-opts: %w", err)
	}
	for driver, options := range all {
		for k, v := range options {
			n.add(driver, k, v)
		}
	}
	return nil
}
