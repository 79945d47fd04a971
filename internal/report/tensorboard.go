package report

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"math"
	"time"
)

// TensorBoard writes steps and evaluations as TensorBoard's event files hold them: records of tensorflow.Event, each with its length
// and checksums (tensorflow/core/lib/io/record_writer.h). The file's name must have "tfevents" in it. The first failure is handed to fail.
func TensorBoard(w io.Writer, now func() time.Time, fail func(error)) Func {
	write := func(event []byte) {
		if _, err := w.Write(record(event)); err != nil {
			fail(err)
		}
	}
	begin := appendDouble(nil, 1, seconds(now()))
	write(appendBytes(begin, 3, []byte("brain.Event:2")))
	scalars := func(step int, values ...scalar) {
		var summary []byte
		for _, v := range values {
			value := appendBytes(nil, 1, []byte(v.tag))
			value = append(value, 2<<3|5) // simple_value, a float
			value = binary.LittleEndian.AppendUint32(value, math.Float32bits(float32(v.value)))
			summary = appendBytes(summary, 1, value)
		}
		event := appendDouble(nil, 1, seconds(now()))
		event = append(event, 2<<3)
		event = binary.AppendUvarint(event, uint64(step))
		write(appendBytes(event, 5, summary))
	}
	return func(e Event) {
		switch e := e.(type) {
		case Step:
			scalars(e.Step, scalar{"train/loss", float64(e.Loss)}, scalar{"train/learning_rate", e.LearningRate}, scalar{"train/grad_norm", float64(e.GradNorm)},
				scalar{"train/prompt_norm", float64(e.PromptNorm)}, scalar{"train/update_ratio", float64(e.UpdateRatio)}, scalar{"train/drift", float64(e.Drift)})
		case Eval:
			values := []scalar{{e.Set + "/loss", float64(e.Loss)}}
			if e.Accuracy != nil {
				values = append(values, scalar{e.Set + "/accuracy", *e.Accuracy}, scalar{e.Set + "/macro_f1", *e.MacroF1})
			}
			scalars(e.Step, values...)
		}
	}
}

type scalar struct {
	tag   string
	value float64
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// appendDouble and appendBytes add a field of a protocol buffer's message.
func appendDouble(b []byte, field byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(append(b, field<<3|1), math.Float64bits(v))
}

func appendBytes(b []byte, field byte, v []byte) []byte {
	return append(binary.AppendUvarint(append(b, field<<3|2), uint64(len(v))), v...)
}

// record frames an event: its length, that one's checksum, the event, its checksum.
func record(event []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(event)))
	b = binary.LittleEndian.AppendUint32(b, masked(b))
	b = append(b, event...)
	return binary.LittleEndian.AppendUint32(b, masked(event))
}

// masked is the CRC-32C that records have, turned so that a checksum of a checksum is no trivial one.
func masked(data []byte) uint32 {
	c := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	return (c>>15 | c<<17) + 0xa282ead8
}
