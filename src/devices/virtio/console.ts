// Console device with one port: VIRTIO 1.2, 5.3.

import type { AccessSize } from "../../vmm/bus.ts";
import type { Schema } from "../../vmm/state.ts";
import { INPUT_QUEUE_SCHEMA, InputQueue } from "../input-queue.ts";
import { readBytes } from "./config-bytes.ts";
import type { VirtioDevice, VirtioHost } from "./device.ts";
import type { Virtqueue } from "./virtqueue.ts";

export interface VirtioConsoleOptions {
  /** What the guest wrote; the bytes are the receiver's own. */
  onOutput(bytes: Uint8Array): void;
  /** A `receive` that took less than it was given can be repeated. */
  onRoom?(): void;
  readonly columns?: number;
  readonly rows?: number;
}

/** Feature bit numbers, 5.3.3. */
const FEATURE = { SIZE: 0, EMERG_WRITE: 2 } as const;
/** 5.3.2: queues of port 0. */
const RECEIVE_QUEUE = 0;
const TRANSMIT_QUEUE = 1;
const QUEUE_SIZE = 256;
/** struct virtio_console_config, 5.3.4. */
const CONFIG = { cols: 0, rows: 2, max_nr_ports: 4, emerg_wr: 8, length: 12 } as const;

export const CONSOLE_SCHEMA: Schema = {
  kind: "virtio-console",
  version: 1,
  fields: { input: { section: INPUT_QUEUE_SCHEMA }, config: "bytes" },
  derived: ["deviceId", "pciClass", "features", "queueSizes", "configLength", "host"],
};

export class VirtioConsole implements VirtioDevice {
  readonly schema = CONSOLE_SCHEMA;
  readonly deviceId = 3;
  readonly pciClass = 0x078000;
  readonly features = (1 << FEATURE.SIZE) | (1 << FEATURE.EMERG_WRITE);
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE];
  readonly configLength = CONFIG.length;
  readonly input = new InputQueue();
  /** The configuration as the guest reads it. */
  config = new Uint8Array(CONFIG.length);
  private host: VirtioHost | undefined;
  private readonly onOutput: (bytes: Uint8Array) => void;

  constructor(options: VirtioConsoleOptions) {
    this.onOutput = (bytes) => options.onOutput(bytes);
    this.input.onRoom = () => options.onRoom?.();
    this.setSize(options.columns ?? 80, options.rows ?? 25);
    new DataView(this.config.buffer).setUint32(CONFIG.max_nr_ports, 1, true);
  }

  attach(host: VirtioHost): void {
    this.host = host;
  }

  /** Host input. Returns how many bytes were taken; the rest is to be offered again after `onRoom`. */
  receive(bytes: Uint8Array): number {
    const taken = this.input.push(bytes);
    this.host?.serve(RECEIVE_QUEUE);
    return taken;
  }

  /** The host's terminal changed its size. */
  resize(columns: number, rows: number): void {
    this.setSize(columns, rows);
    this.host?.configChanged();
  }

  readConfig(offset: number, size: AccessSize): number {
    return readBytes(this.config, offset, size);
  }

  /** 5.3.4: a character written to emerg_wr comes out even before the driver has set the device up. */
  writeConfig(offset: number, _size: AccessSize, value: number): void {
    if (offset === CONFIG.emerg_wr) this.onOutput(Uint8Array.of(value & 0xff));
    else this.host?.anomaly("a write to a read-only configuration");
  }

  serve(index: number, queue: Virtqueue): void {
    if (index === RECEIVE_QUEUE) this.fill(queue);
    else if (index === TRANSMIT_QUEUE) this.drain(queue);
  }

  reset(): void {}

  private fill(queue: Virtqueue): void {
    while (this.input.length > 0) {
      const chain = queue.pop();
      if (chain === undefined) return;
      const taken = this.input.take(chain.writableLength);
      queue.push(chain, chain.writeBytes(0, taken));
    }
  }

  private drain(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      chain.read(0, chain.readableLength, (view) => this.onOutput(view.slice()));
      queue.push(chain, 0);
    }
  }

  private setSize(columns: number, rows: number): void {
    const view = new DataView(this.config.buffer, this.config.byteOffset);
    view.setUint16(CONFIG.cols, columns, true);
    view.setUint16(CONFIG.rows, rows, true);
  }
}
