# The image of Salvor, for amd64 and arm64:
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REPOSITORY:VERSION .
# scripts/build-rootfs.ts makes the same files at the same places without an engine.
#
# A release is built with both bases by digest, which no tag that moves can change. Look them up
# and write them behind the tags here (name:tag@sha256:…); engines then go by the digest alone:
#   docker buildx imagetools inspect docker.io/library/node:24.21.0-bookworm-slim
#   docker buildx imagetools inspect gcr.io/distroless/cc-debian12:nonroot
# Take the digest of the index, which is the first one shown: it is for both platforms. Do so anew
# with each change of Node's version, and once a month for the fixes of the C library.

# The version of package.json, with which the tests run; a test holds them together.
ARG NODE_IMAGE=docker.io/library/node:24.21.0-bookworm-slim
# glibc, its C++ library, certificates of authorities; no shell, no package manager. There are no
# tags for its versions: only a digest says which one it is.
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

# JavaScript is the same everywhere: built once, on the machine that builds.
FROM --platform=$BUILDPLATFORM ${NODE_IMAGE} AS build
WORKDIR /opt/salvor
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY tsconfig.json ./
COPY src ./src
RUN npx tsc -p tsconfig.json \
  && rm -rf node_modules src tsconfig.json \
  && npm ci --omit=dev --ignore-scripts
COPY packaging/image/prune.sh /usr/local/bin/
RUN prune.sh /opt/salvor && rm package-lock.json
COPY LICENSE ./

FROM ${NODE_IMAGE} AS node

FROM ${BASE_IMAGE}
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY packaging/image/passwd packaging/image/group /etc/
COPY packaging/image/salvor /usr/local/bin/salvor
COPY --from=build /opt/salvor /opt/salvor
ENV NODE_ENV=production
# One pool of memory for all threads: several keep more free pieces, and no request is faster for it.
ENV MALLOC_ARENA_MAX=1
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/node", "/opt/salvor/dist/main.js"]
CMD ["--help"]
