//go:build !parquet

package data

import "fmt"

// readParquet fails: the library is a tenth of the binary and few need it, so it is a build option.
func readParquet(s Source) ([]record, error) {
	return nil, fmt.Errorf(
		"%s: this ptune was built without Parquet; build with make build TAGS=parquet, "+
			"or convert the file to .jsonl: pandas.read_parquet(…).to_json(…, orient=\"records\", lines=True)",
		s.Path)
}
