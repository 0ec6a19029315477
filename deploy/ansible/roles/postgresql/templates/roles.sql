-- Makes what is missing, and says so. The rights are those of docs/operator.md.
SET client_min_messages = warning;
SELECT format('CREATE ROLE %I LOGIN', name) FROM unnest(ARRAY['{{ kiln_owner }}', '{{ kiln_app }}']) AS name
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
SELECT 'made {{ kiln_database }}' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{{ kiln_database }}');
SELECT 'CREATE DATABASE {{ kiln_database }} OWNER {{ kiln_owner }} TEMPLATE template0 ENCODING ''UTF8'' LC_COLLATE ''C'' LC_CTYPE ''C'''
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{{ kiln_database }}')
\gexec
\connect {{ kiln_database }}
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CREATE, USAGE ON SCHEMA public TO {{ kiln_owner }};
GRANT USAGE ON SCHEMA public TO {{ kiln_app }};
ALTER DEFAULT PRIVILEGES FOR ROLE {{ kiln_owner }} IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {{ kiln_app }};
