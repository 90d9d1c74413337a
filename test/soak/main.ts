// `npm run soak [-- WHAT] [OPTIONS]`: long runs of machines whose vCPUs have a thread each.

import { parseArgs } from "node:util";
import type { Flavour } from "../../src/host/node/debian-guest.ts";
import { runBoots } from "./boots.ts";
import { runPoints } from "./points.ts";
import { say } from "./report.ts";
import { runStress } from "./stress.ts";

const HELP = `Usage: npm run soak -- [boots] [stress] [points] [options]

  boots     boots in a row, each to power-off, with TSC as clock source and no trouble in the kernel's log
  stress    guests/linux/smp-stress.c while processors go offline and come back
  points    random points of pause and resume, reset, save and restore, in boots that have to come to their end
            (all three, if none is named)

  --boots N         boots of each kind (50)
  --cpus A,B        virtual CPUs; boots of each number, the others with the first (4)
  --flavour A,B     Debian's kernels cloud, standard, rt (cloud); points are in boots of the cloud kernel
  --minutes M       of stress (20)
  --points K        in all (1000)
  --each N          points in one boot, at most (30)
  --seed N          of the first boot with points; the next has the next (1)
  --limit S         seconds after which a boot hangs: where it stands is printed then (300)
  --lock FILE       a shared flock(1) on this file for each boot and for the stress

The exit status is 1 where anything failed. A failure is printed with the seed that makes it again, and with the state of a machine that hangs.
`;

const RUNS = ["boots", "stress", "points"] as const;
const FLAVOURS: readonly Flavour[] = ["cloud", "standard", "rt"];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    boots: { type: "string", default: "50" },
    cpus: { type: "string", default: "4" },
    flavour: { type: "string", default: "cloud" },
    minutes: { type: "string", default: "20" },
    points: { type: "string", default: "1000" },
    each: { type: "string", default: "30" },
    seed: { type: "string", default: "1" },
    limit: { type: "string", default: "300" },
    lock: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

function refuse(what: string): never {
  process.stderr.write(`soak: ${what}; see --help\n`);
  process.exit(2);
}

function number(text: string): number {
  const value = Number(text);
  if (!(value > 0)) refuse(`"${text}" is no number that a run can have`);
  return value;
}

if (values.help) {
  say(HELP.trimEnd());
  process.exit(0);
}
const strange = positionals.find((name) => !RUNS.some((run) => run === name));
if (strange !== undefined) refuse(`there is no run "${strange}"`);
const flavours = values.flavour
  .split(",")
  .map((name) => FLAVOURS.find((flavour) => flavour === name) ?? refuse(`there is no kernel "${name}"`));
const cpus = values.cpus.split(",").map(number);
const limitSeconds = number(values.limit);
const { lock } = values;
const wanted = (run: (typeof RUNS)[number]): boolean => positionals.length === 0 || positionals.includes(run);

let failures = 0;
if (wanted("boots")) failures += await runBoots({ count: number(values.boots), cpus, flavours, limitSeconds, lock });
if (wanted("stress"))
  failures += await runStress({
    minutes: number(values.minutes),
    cpus: cpus[0],
    flavour: flavours[0],
    limitSeconds,
    lock,
  });
if (wanted("points"))
  failures += await runPoints({
    points: number(values.points),
    each: number(values.each),
    cpus: cpus[0],
    seed: number(values.seed),
    limitSeconds,
    lock,
  });
process.exit(failures === 0 ? 0 : 1);
