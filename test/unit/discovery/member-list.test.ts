import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { MemberFile } from '../../../src/discovery/member-file.ts';
import { MemberList } from '../../../src/discovery/member-list.ts';
import type { Member } from '../../../src/discovery/membership.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { suiteScope } from '../../support/test-scope.ts';
import { waitFor } from '../../support/wait.ts';

const scope = suiteScope('member-list');
const minuteMs = 60_000;
let fileCount = 0;

function member(name: string, address = `10.0.0.1:${name.length}`): Member {
  return { name, address };
}

const a = member('a', '10.0.0.1:7490');
const b = member('b', '10.0.0.2:7490');
const c = member('c', '[fd00::3]:7490');

function createFile(clock: FakeClock, path?: string): { file: MemberFile; path: string } {
  fileCount += 1;
  const own = path ?? join(scope().directory, `list-${fileCount}`, 'members.json');
  return { path: own, file: new MemberFile({ path: own, maxMembers: 100 }, { log, clock }) };
}

const log = silentLogger;

function createList(parts: { clock?: FakeClock; file?: MemberFile; maxMembers?: number } = {}) {
  const clock = parts.clock ?? new FakeClock();
  const changes: string[] = [];
  const list = new MemberList(
    { isSelf: ({ name }) => name === 'me', maxMembers: parts.maxMembers ?? 100 },
    {
      clock,
      log,
      file: parts.file,
      onChange: (members) => changes.push(members.map(({ name }) => name).join()),
    },
  );
  const names = (): string =>
    list
      .members()
      .map(({ name }) => name)
      .join();
  return { list, clock, changes, names };
}

describe('MemberList', () => {
  test('MemberList takes newcomers at once and keeps who is gone for a while', () => {
    const { list, clock, names } = createList();
    list.replace([a, b]);
    expect(names()).toBe('a,b');
    list.replace([b, c]);
    expect(names()).toBe('b,c,a');
    expect(list.status()).toMatchObject({ count: 3, kept: 1 });
    clock.advance(14_999);
    expect(names()).toBe('b,c,a');
    clock.advance(1);
    expect(names()).toBe('b,c');
  });

  test('MemberList does not begin the time anew when the list comes again', () => {
    const { list, clock, names } = createList();
    list.replace([a, b]);
    list.replace([b]);
    clock.advance(10_000);
    list.replace([b]);
    clock.advance(5000);
    expect(names()).toBe('b');
  });

  test('MemberList keeps the last members when the list comes empty, for ten minutes', () => {
    const { list, clock, names } = createList();
    list.replace([a, b]);
    list.replace([]);
    clock.advance(10 * minuteMs - 1);
    expect(names()).toBe('a,b');
    clock.advance(1);
    expect(names()).toBe('');
  });

  test('MemberList forgets that members were gone when they flap', () => {
    const { list, clock, names, changes } = createList();
    list.replace([a, b]);
    for (let round = 0; round < 20; round += 1) {
      list.replace([a]);
      clock.advance(5000);
      list.replace([a, b]);
      clock.advance(5000);
      expect(names()).toBe('a,b');
    }
    // Nobody's connections were closed for it.
    expect(changes).toEqual(['a,b']);
  });

  test('MemberList lets go of the old address of a node, and of an address with a new name', () => {
    const { list, names } = createList();
    list.replace([a, b]);
    list.replace([member('a', '10.0.0.9:7490'), member('b2', b.address)]);
    expect(list.members().map(({ address }) => address)).toEqual(['10.0.0.9:7490', b.address]);
    expect(names()).toBe('a,b2');
  });

  test('MemberList drops who is gone for sure at once', () => {
    const { list, names } = createList();
    list.replace([a, b], { isFinal: true });
    list.replace([b], { isFinal: true });
    expect(names()).toBe('b');
  });

  test('MemberList leaves out this node, and what is too much', () => {
    const { list, names } = createList({ maxMembers: 2 });
    list.replace([member('me'), a, b, c]);
    expect(names()).toBe('a,b');
  });

  test('MemberList tells since when its source is silent, and why', () => {
    const { list, clock } = createList();
    const beganMs = clock.now();
    list.replace([a]);
    clock.advance(minuteMs);
    list.reportTrouble('connection refused');
    expect(list.status()).toMatchObject({ confirmedAtMs: beganMs, trouble: 'connection refused' });
    list.confirm();
    expect(list.status()).toMatchObject({
      confirmedAtMs: beganMs + minuteMs,
      hasSelf: false,
      trouble: undefined,
    });
  });

  test('MemberList knows the zone of this node while the source tells it', () => {
    const { list, names } = createList();
    expect(list.zone).toBeUndefined();
    list.replace([a, { name: 'me', address: '10.0.0.9:7490', zone: 'z1' }]);
    expect([list.zone, names()]).toEqual(['z1', 'a']);
    list.replace([a]);
    expect(list.zone).toBeUndefined();
  });

  test('MemberList begins with the members of its last run, but for the same source only', async () => {
    const clock = new FakeClock();
    const { file, path } = createFile(clock);
    const first = createList({ clock, file });
    await first.list.begin('kubernetes x');
    const zoned = { ...b, zone: 'z1' };
    first.list.replace([a, zoned]);
    await file.close();
    const savedAtMs = clock.now();
    clock.advance(60 * minuteMs);
    const again = createList({ clock, file: createFile(clock, path).file });
    await again.list.begin('kubernetes x');
    expect(again.list.members()).toEqual([a, zoned]);
    expect(again.list.status()).toMatchObject({ confirmedAtMs: savedAtMs, kept: 0 });
    const other = createList({ clock, file: createFile(clock, path).file });
    await other.list.begin('dns x');
    expect(other.names()).toBe('');
  });

  test('MemberList keeps what is on disk when its list comes empty', async () => {
    const clock = new FakeClock();
    const { file, path } = createFile(clock);
    const { list } = createList({ clock, file });
    await list.begin('s');
    list.replace([a]);
    list.replace([]);
    await file.close();
    expect((await createFile(clock, path).file.read('s'))?.members).toEqual([a]);
  });

  test('MemberList keeps its members when the source changes, until the new one has spoken', async () => {
    const { list, clock, names } = createList();
    await list.begin('dns x');
    list.replace([a]);
    await list.begin('kubernetes y');
    expect(names()).toBe('a');
    list.replace([b]);
    clock.advance(15_000);
    expect(names()).toBe('b');
  });
});

describe('MemberFile', () => {
  test('MemberFile of several lists keeps the last, and leaves no other file', async () => {
    const clock = new FakeClock();
    const { file, path } = createFile(clock);
    for (const each of [[a], [a, b], [c]]) file.save('s', each);
    await file.close();
    expect((await file.read('s'))?.members).toEqual([c]);
    expect(await readdir(dirname(path))).toEqual(['members.json']);
  });

  test.each([
    ['nothing', ''],
    ['half of a file', '{"version":1,"source":"s","members":[{"name"'],
    ['another version', '{"version":2,"source":"s","members":[]}'],
    ['a list', '[]'],
    ['null', 'null'],
    ['too much', ' '.repeat(5 * 1024 * 1024)],
  ])('MemberFile takes %s for no list', async (_, text) => {
    const { file, path } = createFile(new FakeClock());
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
    expect(await file.read('s')).toBeUndefined();
  });

  test('MemberFile leaves out what is no member, and believes no time in the future', async () => {
    const clock = new FakeClock();
    const { file, path } = createFile(clock);
    await mkdir(dirname(path), { recursive: true });
    const members = [
      ...[a, null, 1, { name: 'x' }, { name: '', address: a.address }, c],
      ...[
        { name: 'x', address: 'no port' },
        { name: 'x', address: 'a b:1' },
      ],
      ...[{ name: 'x'.repeat(300), address: a.address }],
    ];
    const content = { version: 1, source: 's', savedAtMs: clock.now() * 2, members };
    await writeFile(path, JSON.stringify(content));
    expect(await file.read('s')).toEqual({ members: [a, c], savedAtMs: clock.now() });
  });

  test('MemberFile goes on where it cannot be written', async () => {
    const clock = new FakeClock();
    const { path } = createFile(clock);
    await mkdir(dirname(path), { recursive: true });
    const { file } = createFile(clock, join(dirname(path), 'file', 'members.json'));
    await writeFile(join(dirname(path), 'file'), 'in the way');
    file.save('s', [a]);
    await file.close();
    expect(await readFile(join(dirname(path), 'file'), 'utf8')).toBe('in the way');
  });

  test('MemberFile writes the last list as soon as it can be written, and says once that it cannot', async () => {
    const clock = new FakeClock();
    const { path: place } = createFile(clock);
    await mkdir(dirname(place), { recursive: true });
    const inTheWay = join(dirname(place), 'file');
    await writeFile(inTheWay, '');
    const warned: string[] = [];
    const warn = (_: unknown, text?: string): void => void warned.push(text ?? '');
    const path = join(inTheWay, 'members.json');
    const file = new MemberFile({ path, maxMembers: 100 }, { log: { ...log, warn }, clock });
    const atMs = clock.now();
    file.save('s', [a]);
    for (let round = 0; round < 3; round += 1) {
      await clock.untilSleeping();
      file.save('s', [a, b]);
      clock.advance(30_000);
    }
    await clock.untilSleeping();
    expect(warned).toHaveLength(1);
    await rm(inTheWay);
    clock.advance(30_000);
    await waitFor(async () => (await file.read('s')) !== undefined);
    // When it was listed, not when there was room for it.
    expect(await file.read('s')).toEqual({ members: [a, b], savedAtMs: atMs + 60_000 });
    await file.close();
  });
});
