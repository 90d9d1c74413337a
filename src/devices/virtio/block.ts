// Block device: VIRTIO 1.2, 5.2. One queue; requests complete in the notification that brings them, since storage is synchronous.

import type { BlockStorage } from "../../host/block.ts";
import type { AccessSize } from "../../vmm/bus.ts";
import type { Schema } from "../../vmm/state.ts";
import type { Chain } from "./chain.ts";
import { readBytes } from "./config-bytes.ts";
import type { VirtioDevice, VirtioHost } from "./device.ts";
import type { Virtqueue } from "./virtqueue.ts";

export interface VirtioBlockOptions {
  readonly storage: BlockStorage;
  /** Up to 20 bytes of ASCII that the guest can ask for. */
  readonly serial?: string;
}

/** Feature bit numbers, 5.2.3. */
const FEATURE = { SEG_MAX: 2, RO: 5, BLK_SIZE: 6, FLUSH: 9, DISCARD: 13, WRITE_ZEROES: 14 } as const;
/** Request types and status, 5.2.6. */
const REQUEST = { IN: 0, OUT: 1, FLUSH: 4, GET_ID: 8, DISCARD: 11, WRITE_ZEROES: 13 } as const;
const STATUS = { OK: 0, IOERR: 1, UNSUPP: 2 } as const;

const SECTOR = 512;
const HEADER_BYTES = 16;
const STATUS_BYTES = 1;
const ID_BYTES = 20;
/** struct virtio_blk_discard_write_zeroes. */
const RANGE_BYTES = 16;
const RANGE_UNMAP = 1;
const QUEUE_SIZE = 256;
/** Header and status take two entries of the queue. */
const SEG_MAX = QUEUE_SIZE - 2;
/** Storage without holes writes zeroes, so one request must stay short: 128 MiB in all. */
const RANGE_SECTORS_MAX = (32 << 20) / SECTOR;
const RANGES_MAX = 4;

/** struct virtio_blk_config, 5.2.4. */
const CONFIG = {
  capacity: 0,
  seg_max: 12,
  blk_size: 20,
  num_queues: 34,
  max_discard_sectors: 36,
  max_discard_seg: 40,
  discard_sector_alignment: 44,
  max_write_zeroes_sectors: 48,
  max_write_zeroes_seg: 52,
  write_zeroes_may_unmap: 56,
  length: 60,
} as const;

export const BLOCK_SCHEMA: Schema = {
  kind: "virtio-block",
  version: 1,
  fields: {},
  derived: [
    "deviceId",
    "pciClass",
    "features",
    "queueSizes",
    "configLength",
    "statistics",
    "storage",
    "sectors",
    "id",
    "config",
    "host",
  ],
};

/** Ends a request with a status other than OK. */
class RequestError extends Error {
  readonly status: number;

  constructor(status: number, what: string) {
    super(what);
    this.status = status;
  }
}

export class VirtioBlock implements VirtioDevice {
  readonly schema = BLOCK_SCHEMA;
  readonly deviceId = 2;
  readonly pciClass = 0x010000;
  readonly features: number;
  readonly queueSizes = [QUEUE_SIZE];
  readonly configLength = CONFIG.length;
  readonly statistics = { reads: 0, writes: 0, flushes: 0, discards: 0, bytesRead: 0, bytesWritten: 0, errors: 0 };
  private readonly storage: BlockStorage;
  private readonly sectors: number;
  private readonly id = new Uint8Array(ID_BYTES);
  private readonly config = new Uint8Array(CONFIG.length);
  private host: VirtioHost | undefined;

  constructor(options: VirtioBlockOptions) {
    this.storage = options.storage;
    this.sectors = Math.floor(options.storage.size / SECTOR);
    const { id } = this;
    id.set(new TextEncoder().encode(options.serial ?? "").subarray(0, ID_BYTES));
    const writable = (1 << FEATURE.DISCARD) | (1 << FEATURE.WRITE_ZEROES);
    const always = (1 << FEATURE.SEG_MAX) | (1 << FEATURE.BLK_SIZE) | (1 << FEATURE.FLUSH);
    this.features = always | (options.storage.readOnly ? 1 << FEATURE.RO : writable);
    const view = new DataView(this.config.buffer);
    view.setBigUint64(CONFIG.capacity, BigInt(this.sectors), true);
    view.setUint32(CONFIG.seg_max, SEG_MAX, true);
    view.setUint32(CONFIG.blk_size, SECTOR, true);
    view.setUint16(CONFIG.num_queues, 1, true);
    view.setUint32(CONFIG.max_discard_sectors, RANGE_SECTORS_MAX, true);
    view.setUint32(CONFIG.max_discard_seg, RANGES_MAX, true);
    view.setUint32(CONFIG.discard_sector_alignment, 1, true);
    view.setUint32(CONFIG.max_write_zeroes_sectors, RANGE_SECTORS_MAX, true);
    view.setUint32(CONFIG.max_write_zeroes_seg, RANGES_MAX, true);
    view.setUint8(CONFIG.write_zeroes_may_unmap, 1);
  }

  attach(host: VirtioHost): void {
    this.host = host;
  }

  readConfig(offset: number, size: AccessSize): number {
    return readBytes(this.config, offset, size);
  }

  writeConfig(): void {
    this.host?.anomaly("a write to a read-only configuration");
  }

  reset(): void {}

  serve(_index: number, queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      // 5.2.6: a header to read and a status byte to write; without them there is no way to answer.
      if (chain.readableLength < HEADER_BYTES || chain.writableLength < STATUS_BYTES) {
        this.host?.fail("a block request without header or status");
        return;
      }
      const room = chain.writableLength - STATUS_BYTES;
      let status: number = STATUS.OK;
      let written = 0;
      try {
        written = this.request(chain, room);
      } catch (error) {
        this.statistics.errors++;
        status = error instanceof RequestError ? error.status : STATUS.IOERR;
        this.host?.anomaly(error instanceof RequestError ? error.message : "the host's storage failed");
      }
      chain.writeBytes(room, Uint8Array.of(status));
      // The used length covers all up to the last byte written, which is the status (2.7.8.1).
      queue.push(chain, status === STATUS.OK && written < room ? written + STATUS_BYTES : room + STATUS_BYTES);
    }
  }

  /** Does what the chain asks for; returns how many bytes of its `room` for data were filled. */
  private request(chain: Chain, room: number): number {
    const header = chain.readBytes(0, HEADER_BYTES);
    const type = readBytes(header, 0, 4);
    const sector = readBytes(header, 8, 4) + readBytes(header, 12, 4) * 2 ** 32;
    const given = chain.readableLength - HEADER_BYTES;
    switch (type) {
      case REQUEST.IN:
        return this.read(chain, sector, room);
      case REQUEST.OUT:
        this.write(chain, sector, given);
        return 0;
      case REQUEST.FLUSH:
        this.statistics.flushes++;
        this.storage.flush();
        return 0;
      case REQUEST.GET_ID:
        return chain.writeBytes(0, this.id.subarray(0, Math.min(ID_BYTES, room)));
      case REQUEST.DISCARD:
      case REQUEST.WRITE_ZEROES:
        this.clear(chain, given, type === REQUEST.DISCARD ? 0 : RANGE_UNMAP);
        return 0;
      default:
        throw new RequestError(STATUS.UNSUPP, "an unknown type of block request");
    }
  }

  private read(chain: Chain, sector: number, length: number): number {
    this.checkRange(sector, length);
    let offset = sector * SECTOR;
    chain.write(0, length, (view) => {
      this.storage.read(offset, view);
      offset += view.length;
    });
    this.statistics.reads++;
    this.statistics.bytesRead += length;
    return length;
  }

  private write(chain: Chain, sector: number, length: number): void {
    this.checkWritable();
    this.checkRange(sector, length);
    let offset = sector * SECTOR;
    chain.read(HEADER_BYTES, length, (view) => {
      this.storage.write(offset, view);
      offset += view.length;
    });
    this.statistics.writes++;
    this.statistics.bytesWritten += length;
    this.writeThrough();
  }

  /** Discard and write zeroes: storage reads as zeroes after either. */
  private clear(chain: Chain, length: number, allowedFlags: number): void {
    this.checkWritable();
    const count = length / RANGE_BYTES;
    if (!Number.isInteger(count) || count < 1 || count > RANGES_MAX)
      throw new RequestError(STATUS.IOERR, "a bad number of ranges to clear");
    const ranges = chain.readBytes(HEADER_BYTES, length);
    for (let at = 0; at < length; at += RANGE_BYTES) {
      // 5.2.6.2: flags that are not known, and unmap for discard, are not supported.
      if ((readBytes(ranges, at + 12, 4) & ~allowedFlags) !== 0)
        throw new RequestError(STATUS.UNSUPP, "unknown flags of a range to clear");
      const sector = readBytes(ranges, at, 4) + readBytes(ranges, at + 4, 4) * 2 ** 32;
      const sectors = readBytes(ranges, at + 8, 4);
      if (sectors > RANGE_SECTORS_MAX) throw new RequestError(STATUS.IOERR, "a range to clear that is too long");
      this.checkRange(sector, sectors * SECTOR);
      this.storage.discard(sector * SECTOR, sectors * SECTOR);
    }
    this.statistics.discards++;
    this.writeThrough();
  }

  private checkWritable(): void {
    if (this.storage.readOnly) throw new RequestError(STATUS.IOERR, "a write to a read-only disk");
  }

  private checkRange(sector: number, length: number): void {
    if (length % SECTOR !== 0) throw new RequestError(STATUS.IOERR, "a block request of no whole sectors");
    if (sector + length / SECTOR > this.sectors)
      throw new RequestError(STATUS.IOERR, "a block request beyond the disk's end");
  }

  /** 5.2.6.2: a driver that can't ask for a flush must find what it wrote on stable storage. */
  private writeThrough(): void {
    if (!this.host?.negotiated(FEATURE.FLUSH)) this.storage.flush();
  }
}
