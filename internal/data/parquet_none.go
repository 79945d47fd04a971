//go:build !parquet

package data

import "fmt"

// readParquet refuses: the library is a tenth of the binary, and few need it.
func readParquet(s Source) ([]record, error) {
	return nil, fmt.Errorf("%s: this ptune was built without Parquet; make build TAGS=parquet builds one that reads it, and pandas.read_parquet(…).to_json(…, orient=\"records\", lines=True) makes .jsonl of it", s.Path)
}
