// Entropy device: VIRTIO 1.2, 5.4.

import type { Schema } from "../../vmm/state.ts";
import type { VirtioDevice, VirtioHost } from "./device.ts";
import type { Virtqueue } from "./virtqueue.ts";

export interface VirtioEntropyOptions {
  /** Fills the whole array with random bytes. */
  fill(bytes: Uint8Array): void;
}

const QUEUE_SIZE = 64;
/** 5.4.6.1: at least one byte must be given, the rest need not be. */
const CHAIN_BYTES_MAX = 65536;

export const ENTROPY_SCHEMA: Schema = {
  kind: "virtio-entropy",
  version: 1,
  fields: {},
  derived: ["deviceId", "pciClass", "features", "queueSizes", "configLength", "host"],
};

export class VirtioEntropy implements VirtioDevice {
  readonly schema = ENTROPY_SCHEMA;
  readonly deviceId = 4;
  readonly pciClass = 0x00ff00;
  readonly features = 0;
  readonly queueSizes = [QUEUE_SIZE];
  readonly configLength = 0;
  private host: VirtioHost | undefined;
  private readonly fillBytes: (bytes: Uint8Array) => void;

  constructor(options: VirtioEntropyOptions) {
    this.fillBytes = (bytes) => options.fill(bytes);
  }

  attach(host: VirtioHost): void {
    this.host = host;
  }

  readConfig(): number {
    return 0;
  }

  writeConfig(): void {}

  reset(): void {}

  serve(_index: number, queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      if (chain.writableLength === 0) this.host?.anomaly("a request for no random bytes");
      // Through memory of our own: sources of randomness refuse to fill shared memory.
      const bytes = new Uint8Array(Math.min(chain.writableLength, CHAIN_BYTES_MAX));
      this.fillBytes(bytes);
      queue.push(chain, chain.writeBytes(0, bytes));
    }
  }
}
