package report

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// TensorBoard returns a Func that writes steps and evaluations as a TensorBoard event file: records
// of tensorflow.Event (tensorflow/core/util/event.proto). The name of the file must contain
// "tfevents". It calls fail with each error.
func TensorBoard(w io.Writer, now func() time.Time, fail func(error)) Func {
	write := func(event []byte) {
		if _, err := w.Write(record(event)); err != nil {
			fail(err)
		}
	}
	header := appendTime(nil, now())
	header = protowire.AppendTag(header, 3, protowire.BytesType) // Event.file_version
	write(protowire.AppendString(header, "brain.Event:2"))
	scalars := func(step int, values ...scalar) {
		event := appendTime(nil, now())
		event = protowire.AppendTag(event, 2, protowire.VarintType) // Event.step
		event = protowire.AppendVarint(event, uint64(step))
		event = protowire.AppendTag(event, 5, protowire.BytesType) // Event.summary
		write(protowire.AppendBytes(event, summary(values)))
	}
	return func(e Event) {
		switch e := e.(type) {
		case Step:
			scalars(e.Step, scalar{"train/loss", float64(e.Loss)},
				scalar{"train/learning_rate", e.LearningRate},
				scalar{"train/grad_norm", float64(e.GradNorm)},
				scalar{"train/prompt_norm", float64(e.PromptNorm)},
				scalar{"train/update_ratio", float64(e.UpdateRatio)},
				scalar{"train/drift", float64(e.Drift)})
		case Eval:
			values := []scalar{{e.Set + "/loss", float64(e.Loss)}}
			if e.Accuracy != nil {
				values = append(values, scalar{e.Set + "/accuracy", *e.Accuracy},
					scalar{e.Set + "/macro_f1", *e.MacroF1})
			}
			scalars(e.Step, values...)
		}
	}
}

type scalar struct {
	tag   string
	value float64
}

// summary returns a tensorflow.Summary of scalars.
func summary(values []scalar) []byte {
	var b []byte
	for _, v := range values {
		value := protowire.AppendTag(nil, 1, protowire.BytesType) // Value.tag
		value = protowire.AppendString(value, v.tag)
		value = protowire.AppendTag(value, 2, protowire.Fixed32Type) // Value.simple_value
		value = protowire.AppendFixed32(value, math.Float32bits(float32(v.value)))
		b = protowire.AppendTag(b, 1, protowire.BytesType) // Summary.value
		b = protowire.AppendBytes(b, value)
	}
	return b
}

// appendTime appends Event.wall_time, in seconds.
func appendTime(b []byte, t time.Time) []byte {
	b = protowire.AppendTag(b, 1, protowire.Fixed64Type)
	return protowire.AppendFixed64(b, math.Float64bits(float64(t.UnixNano())/1e9))
}

// record frames an event as TensorFlow does (tensorflow/core/lib/io/record_writer.h): its length,
// the checksum of the length, the event, its checksum.
func record(event []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(event)))
	b = binary.LittleEndian.AppendUint32(b, masked(b))
	b = append(b, event...)
	return binary.LittleEndian.AppendUint32(b, masked(event))
}

// masked returns the CRC-32C of data, rotated and offset as TFRecord defines it.
func masked(data []byte) uint32 {
	c := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	return (c>>15 | c<<17) + 0xa282ead8
}
