module mariadb-lock

go 1.24
