// Output of the guest on its way to the owner of the machine: collected, sent in batches, and held back where the owner does not keep up.

import { CHANNEL, type FromMachine } from "./protocol.ts";

/** A batch is sent when it is so long, or so old. */
const BATCH_BYTES = 16384;
const BATCH_NS = 4_000_000;
/** The guest is not run while more than this is unread. */
const UNREAD_MAX = 1 << 20;

class Batch {
  bytes = new Uint8Array(256);
  length = 0;

  push(byte: number): void {
    if (this.length === this.bytes.length) {
      const longer = new Uint8Array(this.length * 2);
      longer.set(this.bytes);
      this.bytes = longer;
    }
    this.bytes[this.length++] = byte;
  }

  append(bytes: Uint8Array): void {
    for (const byte of bytes) this.push(byte);
  }

  take(): Uint8Array<ArrayBuffer> {
    const taken = this.bytes.slice(0, this.length);
    this.length = 0;
    return taken;
  }
}

export class OutputBatches {
  private readonly batches = Array.from({ length: CHANNEL.COUNT }, () => new Batch());
  private readonly post: (message: FromMachine) => void;
  private readonly now: () => number;
  /** Bytes sent, modulo 2^32. */
  private sent = 0;
  private pending = 0;
  private oldest = 0;

  constructor(post: (message: FromMachine) => void, now: () => number) {
    this.post = post;
    this.now = now;
  }

  byte(channel: number, byte: number): void {
    this.grow(1);
    this.batches[channel].push(byte);
  }

  bytes(channel: number, bytes: Uint8Array): void {
    this.grow(bytes.length);
    this.batches[channel].append(bytes);
  }

  /** Sends what has waited long enough. */
  flushIfDue(): void {
    if (this.pending > 0 && (this.pending >= BATCH_BYTES || this.now() - this.oldest >= BATCH_NS)) this.flush();
  }

  /** Until something is due to be sent. */
  milliseconds(): number {
    return this.pending === 0 ? Number.POSITIVE_INFINITY : (this.oldest + BATCH_NS - this.now()) / 1e6;
  }

  flush(): void {
    if (this.pending === 0) return;
    this.pending = 0;
    this.batches.forEach((batch, channel) => {
      if (batch.length === 0) return;
      this.sent = (this.sent + batch.length) >>> 0;
      this.post({ type: "output", channel, bytes: batch.take() });
    });
  }

  /** Whether the owner has so much unread that the guest has to wait. */
  blocked(consumed: number): boolean {
    return (this.sent - consumed) >>> 0 > UNREAD_MAX;
  }

  private grow(bytes: number): void {
    if (this.pending === 0) this.oldest = this.now();
    this.pending += bytes;
  }
}
