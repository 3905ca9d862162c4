import { afterAll, afterEach, beforeAll } from 'vitest';
import { makeSocketDirectory, makeWorkDirectory, removeDirectory } from './work-dir.ts';

/**
 * Everything that a test starts, so that all of it ends: what was registered last ends first, then
 * the files go. They stay when {@link TestScope.keep} was called or SALVOR_TEST_KEEP is set.
 */
export class TestScope implements AsyncDisposable {
  /** A directory of this scope's own, on a real file system. */
  readonly directory: string;
  /** A directory with a short path, for unix sockets. */
  readonly socketDirectory: string;
  readonly #stack = new AsyncDisposableStack();
  #keep = process.env['SALVOR_TEST_KEEP'] !== undefined;

  private constructor(directory: string, socketDirectory: string) {
    this.directory = directory;
    this.socketDirectory = socketDirectory;
    this.#stack.defer(() => removeDirectory(socketDirectory));
    this.#stack.defer(async () => {
      if (this.#keep) console.log(`Files are kept in ${directory}`);
      else await removeDirectory(directory);
    });
  }

  /** @param name tells people whose files they see */
  static async open(name: string): Promise<TestScope> {
    return new TestScope(await makeWorkDirectory(name), await makeSocketDirectory());
  }

  /** Registers what is to be done at the end. */
  defer(onEnd: () => Promise<void> | void): void {
    this.#stack.defer(onEnd);
  }

  /** Leaves the files for people to look at. */
  keep(): void {
    this.#keep = true;
  }

  /** Ends everything. A second call does nothing. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

/**
 * Runs something in a scope of its own and ends the scope; the files stay when it fails.
 *
 * @throws what `body` throws
 */
export async function withScope<T>(
  name: string,
  body: (scope: TestScope) => Promise<T>,
): Promise<T> {
  await using scope = await TestScope.open(name);
  try {
    return await body(scope);
  } catch (error) {
    scope.keep();
    throw error;
  }
}

/**
 * A scope that lasts for all tests of the describe block or file in which it is called.
 *
 * @returns gives the scope; to be called in hooks and tests
 */
export function suiteScope(name: string): () => TestScope {
  let scope: TestScope | undefined;
  beforeAll(async () => {
    scope = await TestScope.open(name);
  });
  afterEach(({ task }) => {
    if (task.result?.state === 'fail') scope?.keep();
  });
  afterAll(async () => {
    await scope?.[Symbol.asyncDispose]();
  });
  return () => {
    if (scope === undefined) throw new Error(`Cannot use the scope of ${name} outside its tests`);
    return scope;
  };
}
