// One chain of buffers: what the driver wrote for the device, then room for what the device writes (VIRTIO 1.2, 2.7.4, 2.7.5).
// Message framing is the driver's choice (2.7.4), so all access is by offset into the readable or the writable bytes.

import type { GuestMemory } from "../../vmm/bus.ts";

interface Segment {
  readonly address: number;
  readonly length: number;
}

export class Chain {
  /** Index of the first descriptor: the chain's name in the used ring. */
  readonly head: number;
  readableLength = 0;
  writableLength = 0;
  private readonly memory: GuestMemory;
  private readonly readable: Segment[] = [];
  private readonly writable: Segment[] = [];

  constructor(memory: GuestMemory, head: number) {
    this.memory = memory;
    this.head = head;
  }

  /** Adds a buffer that is known to be RAM; false when a readable one comes after a writable one (2.7.4.2). */
  append(address: number, length: number, writable: boolean): boolean {
    if (writable) {
      this.writable.push({ address, length });
      this.writableLength += length;
    } else {
      if (this.writable.length > 0) return false;
      this.readable.push({ address, length });
      this.readableLength += length;
    }
    return true;
  }

  /** Calls `each` with views that together are the readable bytes [offset, offset + length). */
  read(offset: number, length: number, each: (view: Uint8Array) => void): void {
    visit(this.readable, offset, length, (address, count) => {
      const view = this.memory.view(address, count);
      if (view !== undefined) each(view);
    });
  }

  /** The same for the writable bytes. */
  write(offset: number, length: number, each: (view: Uint8Array) => void): void {
    visit(this.writable, offset, length, (address, count) => {
      const view = this.memory.writableView(address, count);
      if (view !== undefined) each(view);
    });
  }

  /** So many of the writable bytes have been written. */
  announce(written: number): void {
    visit(this.writable, 0, Math.min(written, this.writableLength), (address, count) =>
      this.memory.written(address, count),
    );
  }

  /** A copy of readable bytes; shorter where there are fewer. */
  readBytes(offset: number, length: number): Uint8Array {
    const out = new Uint8Array(Math.max(0, Math.min(length, this.readableLength - offset)));
    let filled = 0;
    this.read(offset, out.length, (view) => {
      out.set(view, filled);
      filled += view.length;
    });
    return out;
  }

  /** Copies `data` to the writable bytes from `offset`, as far as they reach; returns how many were written. */
  writeBytes(offset: number, data: Uint8Array): number {
    let written = 0;
    this.write(offset, data.length, (view) => {
      view.set(data.subarray(written, written + view.length));
      written += view.length;
    });
    return written;
  }
}

function visit(
  segments: readonly Segment[],
  offset: number,
  length: number,
  each: (address: number, count: number) => void,
): void {
  let skip = offset;
  let left = length;
  for (const segment of segments) {
    if (left <= 0) return;
    if (skip >= segment.length) {
      skip -= segment.length;
      continue;
    }
    const count = Math.min(segment.length - skip, left);
    each(segment.address + skip, count);
    skip = 0;
    left -= count;
  }
}
