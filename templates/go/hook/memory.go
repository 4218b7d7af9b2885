//go:build wasip1

package hook

import (
	"encoding/binary"
	"unsafe"
)

// alive keeps what the host reads or has written from the collector, from the call that made it until the
// host says that it has read the result. Go's collector does not move what is on the heap.
var alive [][]uint64

// block gives so many zero bytes that stay where they are, aligned to 8, and their address.
func block(size uint32) ([]byte, uint32) {
	words := make([]uint64, size/8+1)
	alive = append(alive, words)
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)
	return bytes[:size:size], address(unsafe.Pointer(&words[0]))
}

func address(at unsafe.Pointer) uint32 { return uint32(uintptr(at)) }

// at is what lies in the memory that the host has written.
func at(address, size uint32) []byte {
	if size == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(uintptr(address))), size)
}

//go:wasmexport cabi_realloc
func realloc(old, oldSize, _, size uint32) uint32 {
	bytes, place := block(size)
	copy(bytes, at(old, oldSize))
	return place
}

// record is a place in memory that is read or written field by field, at the offsets of the canonical ABI.
type record []byte

func (r record) u8(offset int) uint8          { return r[offset] }
func (r record) u32(offset int) uint32        { return binary.LittleEndian.Uint32(r[offset:]) }
func (r record) i64(offset int) int64         { return int64(binary.LittleEndian.Uint64(r[offset:])) }
func (r record) putU8(offset int, it uint8)   { r[offset] = it }
func (r record) putU32(offset int, it uint32) { binary.LittleEndian.PutUint32(r[offset:], it) }
func (r record) putI64(offset int, it int64) {
	binary.LittleEndian.PutUint64(r[offset:], uint64(it))
}

func (r record) putBool(offset int, it bool) {
	if it {
		r[offset] = 1
	}
}

// text copies: what the host has written lives no longer than the call.
func (r record) text(offset int) string { return string(at(r.u32(offset), r.u32(offset+4))) }

func (r record) putText(offset int, text string) {
	bytes, place := block(uint32(len(text)))
	copy(bytes, text)
	r.putU32(offset, place)
	r.putU32(offset+4, uint32(len(text)))
}

// list gives the elements of a list that the host has written.
func (r record) list(offset int, size uint32) []record {
	first, count := r.u32(offset), r.u32(offset+4)
	elements := make([]record, count)
	for index := range elements {
		elements[index] = record(at(first+uint32(index)*size, size))
	}
	return elements
}

// putList makes room for a list, and gives its elements to be filled.
func (r record) putList(offset int, count int, size uint32) []record {
	bytes, place := block(uint32(count) * size)
	r.putU32(offset, place)
	r.putU32(offset+4, uint32(count))
	elements := make([]record, count)
	for index := range elements {
		from := uint32(index) * size
		elements[index] = record(bytes[from : from+size])
	}
	return elements
}

func (r record) putTexts(offset int, texts []string) {
	for index, element := range r.putList(offset, len(texts), 8) {
		element.putText(0, texts[index])
	}
}
