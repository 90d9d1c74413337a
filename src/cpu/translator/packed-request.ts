// A request to the compiler as two buffers: cloning thousands of small objects for another thread takes longer than finding the regions.

import type { CompileRequest, WantedRegion } from "./compile-service.ts";
import type { Region, RegionBlock } from "./region.ts";

export interface PackedRequest {
  readonly numbers: Int32Array<ArrayBuffer>;
  /** Records and code of all regions. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

export function packRequest({ wanted, used }: CompileRequest): PackedRequest {
  const numbers: number[] = [used.length, ...used, wanted.length];
  let size = 0;
  for (const { region, again } of wanted) {
    const { blocks, pages, entries, records, code, instructions } = region;
    numbers.push(again ? 1 : 0, instructions, records.length, code.length, pages.length, entries.length, blocks.length);
    for (const page of pages) numbers.push(Number(BigInt.asIntN(32, page)), Number(BigInt.asIntN(32, page >> 32n)));
    numbers.push(...entries);
    for (const { record, last, instructions: count, host, length, page, taken, notTaken, targets } of blocks) {
      numbers.push(record, last, count, host, length, page, taken, notTaken, targets.length, ...targets);
    }
    size += records.length + code.length;
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const { region } of wanted) {
    for (const part of [region.records, region.code]) {
      bytes.set(part, at);
      at += part.length;
    }
  }
  return { numbers: Int32Array.from(numbers), bytes };
}

export function unpackRequest({ numbers, bytes }: PackedRequest): CompileRequest {
  let at = 0;
  let byteAt = 0;
  const number = (): number => numbers[at++];
  const list = (count: number): number[] => Array.from({ length: count }, number);
  const part = (length: number): Uint8Array<ArrayBuffer> => {
    byteAt += length;
    return bytes.slice(byteAt - length, byteAt);
  };
  const page = (): bigint => {
    const low = BigInt(number() >>> 0);
    return (BigInt(number()) << 32n) | low;
  };
  const block = (): RegionBlock => {
    const [record, last, instructions, host, length, ofPage, taken, notTaken, targets] = list(9);
    return {
      record,
      last,
      instructions,
      host: host >>> 0,
      length,
      page: ofPage,
      taken,
      notTaken,
      targets: list(targets),
    };
  };
  const region = (): WantedRegion => {
    const [again, instructions, recordBytes, codeBytes, pages, entries, blocks] = list(7);
    const made: Region = {
      pages: Array.from({ length: pages }, page),
      entries: list(entries),
      blocks: Array.from({ length: blocks }, block),
      records: part(recordBytes),
      code: part(codeBytes),
      instructions,
    };
    return { region: made, again: again !== 0 };
  };
  const used = list(number());
  return { used, wanted: Array.from({ length: number() }, region) };
}
