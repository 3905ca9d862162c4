# The image of Salvor, for amd64 and arm64:
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REPOSITORY:VERSION .
# scripts/build-rootfs.ts makes the same files at the same places without an engine.
ARG NODE_IMAGE=docker.io/library/node:24-bookworm-slim
# glibc, its C++ library, certificates of authorities; no shell, no package manager.
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
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/node", "/opt/salvor/dist/main.js"]
CMD ["--help"]
